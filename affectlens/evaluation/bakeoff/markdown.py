"""A bake-off as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from affectlens.evaluation.bakeoff.result import BakeOff

HEAD = (
    "method",
    "heard",
    "feeling words masked",
    "without first sentence",
    "copied openers",
    "perplexity ratio",
    "distinct-2",
    "topic",
    "harmonic, masked",
    "tokens to tune",
    "front",
)

CONTROL = " (control)"


def lines(found: BakeOff, *, intervals: bool = True) -> list[tuple[str, ...]]:
    """The table, a tuple of cells per method.

    Args:
        found: The bake-off.
        intervals: Whether they stand behind their values.
    """
    with_ = _with if intervals else lambda value, _ci: f"{value:.2f}"
    cells: list[tuple[str, ...]] = []
    for one in found.entries:
        m = one.metrics
        cells.append(
            (
                one.method + (CONTROL if one.control else ""),
                with_(m.accuracy, m.accuracy_ci),
                with_(m.masked_accuracy, m.masked_accuracy_ci),
                f"{m.later_accuracy:.2f}",
                f"{m.copied_openers:.2f}",
                f"{m.perplexity_ratio:.2f}",
                f"{m.distinct2:.2f}",
                f"{m.topic:.2f}",
                with_(m.masked_harmonic, m.masked_harmonic_ci),
                f"{one.tuning_tokens:,}",
                "yes" if one.method in found.front else "",
            )
        )
    return cells


def markdown(found: BakeOff) -> str:
    """Table, differences to the controls, front, winners."""
    asked = found.settings
    text = [
        f"# Bake-off on {found.model}",
        "",
        f"{asked.events} test events, each in {len(asked.emotions)} emotions, one reply of at most "
        f"{asked.generation.max_new_tokens} tokens; 95 % intervals over scenarios. Strengths and "
        f"wordings were chosen by the masked harmonic score on {asked.tune_events} tuning events, "
        f"at most {asked.looks} per method and emotion ({found.budget:,} tokens per method), "
        f"within a perplexity ratio of {asked.max_perplexity_ratio:g}. {_written_by(found)}",
        "",
        *_table(HEAD, lines(found)),
        "",
        "Against the controls, on the same events (difference, 95 % interval, p by Holm over the "
        "methods):",
        "",
        *_table(
            ("difference", "measure", "by", "p"),
            [
                (
                    f"{pair.arm} − {pair.control}",
                    pair.measure.replace("_", " "),
                    f"{pair.difference:+.2f} ({pair.ci[0]:+.2f} to {pair.ci[1]:+.2f})",
                    f"{pair.p:.3f}",
                )
                for pair in found.pairs
                if pair.measure == "masked_accuracy"
            ],
        ),
        "",
        "No other method has more masked accuracy at less perplexity than: "
        f"{', '.join(found.front)}.",
        "",
        *(f"- **{one.emotion}**: {one.words}." for one in found.winners),
        "",
    ]
    return "\n".join(text)


def _written_by(found: BakeOff) -> str:
    """Which back ends wrote the replies, method by method if there are several."""
    by: dict[str, list[str]] = {}
    for one in found.entries:
        by.setdefault(one.generated_by, []).append(one.method)
    if len(by) == 1:
        return f"Replies by {next(iter(by))}."
    return "; ".join(f"Replies by {who}: {', '.join(names)}" for who, names in by.items()) + "."


def _with(value: float, ci: tuple[float, float]) -> str:
    return f"{value:.2f} ({ci[0]:.2f}–{ci[1]:.2f})"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *rows)]
