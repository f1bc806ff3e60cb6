"""What ``affectlens probe`` prints of one probe and of what it reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.cli.consoles import print_lines, stdout
from affectlens.core.jsonl import json_line

if TYPE_CHECKING:
    from affectlens.probes import Probe, Readings

_SHOWN = 3


def print_probe(probe: Probe, saved: Path, *, as_json: bool) -> None:
    """How far its probabilities can be believed, before and after calibration."""
    from rich.table import Table

    out = stdout()
    if as_json:
        print_lines(probe.table_rows())
        return
    facts = probe.facts
    table = Table(title=f"{probe.kind} at {probe.site.hook_name}, {probe.position}")
    for i, name in enumerate(("probabilities", "log-loss", "ECE (95 %)")):
        table.add_column(name, justify="right" if i else "left")
    for name, one in (("as claimed", probe.before), (probe.calibration.kind, probe.after)):
        if one is not None:
            error = f"{one.ece:.3f} ({one.ece_low:.3f}-{one.ece_high:.3f})"
            table.add_row(name, f"{one.log_loss:.3f}", error)
    out.print(table)
    out.print(
        f"Fitted on {facts['fitted']} texts, calibrated on {facts['calibrated']}, judged on "
        f"{facts['judged']} ({facts['judged_on']}); C {facts['penalty']:g}."
    )
    out.print(f"Saved: {saved}", soft_wrap=True)


def print_readings(found: Readings, page: Path | None, *, as_json: bool) -> None:
    """Tokens coloured by their likeliest class, the stronger the surer, and the text's classes."""
    from rich.text import Text

    from affectlens.plotting.style import emotion_colour

    out = stdout()
    if as_json:
        for row, one in zip(found.table_rows(), found.texts, strict=True):
            tokens = [
                [token, *(round(float(p), 6) for p in own)]
                for token, own in zip(one.tokens, one.by_token, strict=True)
            ]
            out.out(json_line({**row, "tokens": tokens}))
        return
    names = found.classes
    legend = Text("  ").join(
        Text(name, style=f"on {emotion_colour(name, i)}") for i, name in enumerate(names)
    )
    out.print(legend)
    for one in found.texts:
        line = Text()
        for token, own in zip(one.tokens, one.by_token, strict=True):
            top = int(own.argmax())
            line.append(token, style=f"on {_mixed(emotion_colour(names[top], top), own[top])}")
        out.print(line)
        ranked = sorted(zip(one.of_text.tolist(), names, strict=True), reverse=True)
        said = ", ".join(f"{name} {share:.0%}" for share, name in ranked[:_SHOWN])
        sets = "" if one.labels is None else f"; labels: {', '.join(one.labels) or 'none'}"
        out.print(Text(f"  {said}{sets}", style="dim"))
    if page is not None:
        out.print(f"Page: {page}", soft_wrap=True)


def _mixed(colour: str, share: float) -> str:
    """A colour faded towards black by how sure the probe is."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part * min(1.0, max(0.0, float(share)))):02x}" for part in parts)
