"""Arms in pairs: the table of differences, and what they say in words.

Every sentence is made from the numbers of the run; where these do not settle a question, the
sentence says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.reports.markup import Cell, card, finite, number, percent, table, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affectlens.reports.data import Arm, Comparison, Evaluation

LEVEL = 0.05
"""Differences with a smaller p are called differences."""

MEASURES = {
    "accuracy": "accuracy",
    "masked_accuracy": "feeling words masked",
    "harmonic": "harmonic mean",
}


def comparison_card(evaluation: Evaluation) -> str:
    """Differences between arms, in words and as a table; "" if none were measured."""
    if not evaluation.comparisons:
        return ""
    labels = {arm.name: arm.label for arm in evaluation.arms}
    found = {(c.arm, c.control, c.measure): c for c in evaluation.comparisons}
    pairs = list(dict.fromkeys((c.arm, c.control) for c in evaluation.comparisons))
    shown = [m for m in MEASURES if any(key[2] == m for key in found)]
    rows = [
        (
            f"{text(labels.get(arm, arm))} − {text(labels.get(control, control))}",
            [_cell(found.get((arm, control, measure)), measure) for measure in shown],
        )
        for arm, control in pairs
    ]
    said = "".join(f"<li>{text(sentence)}</li>" for sentence in sentences(evaluation))
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
    value, low, high = (
        _signed(x, measure) for x in (comparison.difference, comparison.low, comparison.high)
    )
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


def sentences(evaluation: Evaluation) -> list[str]:
    """What the arms say about naming, refining and the choice of units, as far as they do."""
    arms = {arm.name: arm for arm in evaluation.arms if finite(arm.accuracy)}
    found = {(c.arm, c.control, c.measure): c for c in evaluation.comparisons}
    circuit, analytic = arms.get("circuit"), arms.get("analytic_circuit")
    made = [_naming(arms[name]) for name in ("circuit", "residual") if name in arms]
    if circuit and analytic:
        made.append(_refining(found, circuit, analytic))
    refined = [arm for name, arm in arms.items() if name.startswith("random_units_refined")]
    unrefined = arms.get("random_units_analytic")
    if circuit and refined and unrefined:
        made.append(_units(circuit, refined, unrefined))
    if circuit and refined:
        made += [_pair(found, circuit, arm) for arm in refined]
    if analytic and unrefined:
        made.append(_pair(found, analytic, unrefined))
    return [sentence for sentence in made if sentence]


def _naming(arm: Arm) -> str:
    if arm.masked is None:
        return ""
    said = (
        f"{_capital(arm.label)}: {percent(arm.accuracy)} of replies are heard as meant, "
        f"{percent(arm.masked.value)} once every feeling word is taken out"
    )
    if arm.later is not None:
        said += f", {percent(arm.later.value)} without the first sentence"
    said += "."
    if arm.copied is not None:
        said += f" {percent(arm.copied.value)} begin like an opener that the vectors saw."
    return said


def _refining(found: dict[tuple[str, str, str], Comparison], circuit: Arm, analytic: Arm) -> str:
    plain = found.get((circuit.name, analytic.name, "accuracy"))
    masked = found.get((circuit.name, analytic.name, "masked_accuracy"))
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


def _units(circuit: Arm, refined: Sequence[Arm], unrefined: Arm) -> str:
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


def _pair(found: dict[tuple[str, str, str], Comparison], arm: Arm, control: Arm) -> str:
    plain = found.get((arm.name, control.name, "accuracy"))
    masked = found.get((arm.name, control.name, "masked_accuracy"))
    if plain is None or masked is None or not finite(plain.p):
        return ""
    return (
        f"{_capital(arm.label)} against {control.label}: {_told(plain)}; with feeling words "
        f"masked {_told(masked)}."
    )


def _told(comparison: Comparison) -> str:
    """A difference in words: whether it is one, its size, interval and p."""
    size = f"{points(comparison.difference)} points"
    spread = (
        f"95 % interval {points(comparison.low)} to {points(comparison.high)}, "
        f"p {p_value(comparison.p)}"
    )
    if _clear(comparison):
        return f"{size} ({spread})"
    return f"no difference told ({size}, {spread})"


def _clear(comparison: Comparison) -> bool:
    return finite(comparison.p) and comparison.p < LEVEL


def _capital(label: str) -> str:
    return label[:1].upper() + label[1:]
