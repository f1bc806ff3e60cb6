"""Tables of what was measured of strengths."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.cli.consoles import print_lines, stdout

if TYPE_CHECKING:
    from affectlens.pipeline.intensity import Calibration
    from affectlens.pipeline.tuning_found import Found


def print_calibration(found: Calibration, saved: Path, *, as_json: bool) -> None:
    """What every dose did, then heard against asked."""
    from rich.table import Table

    from affectlens.evaluation.intensity import spread_at

    if as_json:
        print_lines(found.table_rows())
        print_lines(asdict(check) for check in found.checks)
        return
    out = stdout()
    table = Table(title=f"What doses do on tuning events, mode {found.mode}")
    columns = ("emotion", "dose", "heard", "share", "masked", "perplexity ratio")
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left")
    last = ""
    for point in found.points:
        if last and point.emotion != last:
            table.add_section()
        numbers = (point.heard, point.share, point.masked, point.perplexity_ratio)
        name = "" if point.emotion == last else point.emotion
        table.add_row(name, f"{point.dose:.3g}", *(f"{x:.2f}" for x in numbers))
        last = point.emotion
    out.print(table)
    for emotion, why in found.silent.items():
        out.print(f"{emotion} is not calibrated: {why}", markup=False, soft_wrap=True)
    if found.checks:
        asked = list(found.checks[0].heard)
        beside = Table(title="Heard on test events, by what was asked")
        names = ["emotion", "none", *(f"{x:g}" for x in asked), "most", "slope", "R²", "order"]
        for i, name in enumerate(names):
            beside.add_column(name, justify="right" if i else "left")
        for check in found.checks:
            numbers = (check.unsteered, *check.heard.values(), check.highest, check.slope, check.r2,
                       check.ordered)  # fmt: skip
            beside.add_row(check.emotion, *(f"{x:.2f}" for x in numbers))
        out.print(beside)
        if len(found.checks) > 1 and 0.5 in asked:
            gap = spread_at(found.checks, 0.5)
            out.print(f"Asked for 0.5, emotions differ by at most {gap:.2f} in what is heard.")
    out.print(f"Saved: {saved}", soft_wrap=True)


def print_search(found: Found, saved: Path | None, *, as_json: bool) -> None:
    """The trade-off, the best of it, and why it works or not."""
    from rich.table import Table

    if as_json:
        print_lines(found.table_rows())
        print_lines([{"spec": found.spec, **asdict(found.reason), **asdict(found.effect)}])
        return
    out = stdout()
    table = Table(title="What was tried, feeling words taken out before the judge hears")
    rows = found.table_rows()
    # What all candidates share is said once, by the request below; the files have every number.
    ways = [name for name in ("operator", "positions") if len({row[name] for row in rows}) > 1]
    measures = ("masked_accuracy", "accuracy", "perplexity_ratio", "masked_harmonic")
    columns = ("layers", *ways, "dose", "events", "masked", "heard", "ratio", "score", "")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i <= len(ways) else "right")
    for row in rows:
        table.add_row(
            f"{row['mode']} {row['layers']}",
            *(row[name] for name in ways),
            f"{row['strength']:.3g}",
            str(row["events"]),
            *(f"{row[name]:.2f}" for name in measures),
            "breaks" if row["broken"] else "front" if row["front"] else "",
        )
    out.print(table)
    for row in found.breaks:
        out.print(
            f"Text breaks at layers {row['layers']} ({row['mode']}, {row['operator']}) from "
            f"strength {row['strength']:.3g} on: perplexity ratio {row['perplexity_ratio']:.1f}.",
            soft_wrap=True,
        )
    one = found.effect
    size = "" if one.size is None else f", {one.size:.1%} of the residual stream's length"
    out.print(
        f"{'Best' if found.best else 'Most fluent'}: {found.spec} ({one.kl:.2f} nats per token "
        f"from unsteered{size}; {found.tokens} tokens generated).",
        soft_wrap=True,
        markup=False,
    )
    out.print(f"{found.reason.name}: {found.reason.sentence}", soft_wrap=True, markup=False)
    if saved is not None:
        out.print(f"Saved: {saved}, the trade-off beside it.", soft_wrap=True)
