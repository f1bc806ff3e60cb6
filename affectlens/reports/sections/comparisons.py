"""Arms in pairs: the table of differences, and what they say in words.

Every sentence is made from the numbers of the run; where these do not settle a question, the
sentence says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.evaluation.arms.random_units_refined import ALL_DRAWS
from affectlens.plotting.arms import arm_title
from affectlens.reports.markup import Cell, card, finite, number, percent, table, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from affectlens.evaluation import ArmMetrics, Comparison
    from affectlens.reports.data import ReportData

LEVEL = 0.05
"""Differences with a smaller p are called differences."""

MEASURES = {
    "accuracy": "accuracy",
    "masked_accuracy": "feeling words masked",
    "harmonic": "harmonic mean",
}


def comparison_card(data: ReportData) -> str:
    """Differences between arms, in words and as a table; "" if none were measured."""
    if not data.comparisons:
        return ""
    found = {(c.arm, c.control, c.measure): c for c in data.comparisons}
    pairs = list(dict.fromkeys((c.arm, c.control) for c in data.comparisons))
    shown = [m for m in MEASURES if any(key[2] == m for key in found)]
    rows = [
        (
            f"{text(arm_title(arm))} − {text(arm_title(control))}",
            [_cell(found.get((arm, control, measure)), measure) for measure in shown],
        )
        for arm, control in pairs
    ]
    said = "".join(f"<li>{text(sentence)}</li>" for sentence in sentences(data))
    return card(
        "Arms in pairs",
        (f"<ul>{said}</ul>" if said else "")
        + table(["difference", *(MEASURES[m] for m in shown)], rows),
        explain="<b>Reading it.</b> Replies to the same event for the same target are paired, and "
        "whole scenarios are drawn anew (bootstrap): the difference, its 95 % interval, and a "
        "two-sided p. <b>Limits.</b> p is not corrected for the number of comparisons, and no "
        "difference found is not the same as none.",
    )


def _cell(comparison: Comparison | None, measure: str) -> Cell:
    if comparison is None:
        return Cell("–")
    value, low, high = (_signed(x, measure) for x in (comparison.difference, *comparison.ci))
    if not finite(comparison.p):
        return Cell(value, comparison.difference)
    return Cell(
        f"{value} <small>{low} to {high}, p {p_value(comparison.p)}</small>", comparison.difference
    )


def _signed(value: float, measure: str) -> str:
    if not finite(value):
        return "–"
    if measure == "harmonic":
        return f"{'+' if value > 0 else ''}{number(value)}"
    return points(value)


def points(value: float) -> str:
    """A difference of shares in points of a hundred."""
    whole = round(100 * value)
    return f"{'+' if whole > 0 else ''}{number(whole, 0)}"


def p_value(p: float) -> str:
    """``= 0.03``, ``< 0.001``, or a dash."""
    if not finite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def sentences(data: ReportData) -> list[str]:
    """What the arms say about naming, refining and the choice of units, as far as they do."""
    arms = {name: arm for name, arm in data.arms.items() if finite(arm.accuracy)}
    found = {(c.arm, c.control, c.measure): c for c in data.comparisons}
    circuit, analytic = arms.get("circuit"), arms.get("analytic_circuit")
    made = [_naming(name, arms[name]) for name in ("circuit", "residual") if name in arms]
    if circuit and analytic:
        made.append(_refining(found, circuit, analytic))
    refined = {name: a for name, a in arms.items() if name.startswith("random_units_refined")}
    unrefined = arms.get("random_units_analytic")
    if circuit and refined and unrefined:
        made.append(_units(circuit, list(refined.values()), unrefined))
    if circuit and refined:
        together = _pair(found, "circuit", ALL_DRAWS)
        made += [together] if together else [_pair(found, "circuit", name) for name in refined]
    if analytic and unrefined:
        made.append(_pair(found, "analytic_circuit", "random_units_analytic"))
    return [sentence for sentence in made if sentence]


def _naming(name: str, arm: ArmMetrics) -> str:
    if not finite(arm.masked_accuracy):
        return ""
    said = (
        f"{_capital(arm_title(name))}: {percent(arm.accuracy)} of replies are heard as meant, "
        f"{percent(arm.masked_accuracy)} once every feeling word is taken out"
    )
    if finite(arm.later_accuracy):
        said += f", {percent(arm.later_accuracy)} without the first sentence"
    said += "."
    if finite(arm.copied_openers):
        said += f" {percent(arm.copied_openers)} begin like an opener that the vectors saw."
    return said


def _refining(
    found: Mapping[tuple[str, str, str], Comparison], circuit: ArmMetrics, analytic: ArmMetrics
) -> str:
    plain = found.get(("circuit", "analytic_circuit", "accuracy"))
    masked = found.get(("circuit", "analytic_circuit", "masked_accuracy"))
    if plain is None or masked is None or not finite(plain.p):
        return ""
    said = (
        f"Refining moves the circuit from {percent(analytic.accuracy)} to "
        f"{percent(circuit.accuracy)}: {_told(plain)}; with feeling words masked, {_told(masked)}"
    )
    if plain.p < LEVEL and plain.difference > 0 and not _clear(masked):
        return f"{said}. What the descent adds is, as far as this run can tell, naming."
    if plain.p < LEVEL and plain.difference > 0 and masked.difference < plain.difference / 2:
        return f"{said}. More than half of what the descent adds is naming."
    return said + "."


def _units(circuit: ArmMetrics, refined: Sequence[ArmMetrics], unrefined: ArmMetrics) -> str:
    reached = sum(arm.accuracy for arm in refined) / len(refined)
    gap = circuit.accuracy - unrefined.accuracy
    if gap <= 0:
        return ""
    share = (reached - unrefined.accuracy) / gap
    verdict = (
        "at this budget the descent does most of the work, whatever the units"
        if share > 0.5
        else "at this budget most of the effect needs the circuit's own units"
    )
    return (
        f"Random units in the same layers go from {percent(unrefined.accuracy)} to "
        f"{percent(reached)} by the same descent, {percent(share)} of the way to the refined "
        f"circuit: {verdict}."
    )


def _pair(found: Mapping[tuple[str, str, str], Comparison], arm: str, control: str) -> str:
    plain = found.get((arm, control, "accuracy"))
    masked = found.get((arm, control, "masked_accuracy"))
    if plain is None or masked is None or not finite(plain.p):
        return ""
    return (
        f"{_capital(arm_title(arm))} against {arm_title(control)}: {_told(plain)}; with feeling "
        f"words masked {_told(masked)}."
    )


def _told(comparison: Comparison) -> str:
    """A difference in words: whether it is one, its size, interval and p."""
    size = f"{points(comparison.difference)} points"
    low, high = comparison.ci
    spread = f"95 % interval {points(low)} to {points(high)}, p {p_value(comparison.p)}"
    if _clear(comparison):
        return f"{size} ({spread})"
    return f"no difference told ({size}, {spread})"


def _clear(comparison: Comparison) -> bool:
    return finite(comparison.p) and comparison.p < LEVEL


def _capital(label: str) -> str:
    return label[:1].upper() + label[1:]
