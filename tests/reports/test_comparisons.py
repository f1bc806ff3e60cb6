"""Sentences about arms say what the numbers say, and another thing when the numbers change."""

from __future__ import annotations

from dataclasses import replace

from html_check import Page
from sample import arm, pair, sample

from affectlens.evaluation import ARMS
from affectlens.reports import ReportData, render
from affectlens.reports.sections.comparisons import comparison_card, p_value, points, sentences

DATA = sample()


def changed(**arms: tuple[float, float]) -> ReportData:
    """The sample with other accuracies, plain and masked."""
    made = {name: arm(*accuracies, 2.0) for name, accuracies in arms.items()}
    return replace(DATA, arms={**DATA.arms, **made})


def with_pair(arm: str, control: str, measure: str, difference: float, p: float) -> ReportData:
    kept = [c for c in DATA.comparisons if (c.arm, c.control, c.measure) != (arm, control, measure)]
    new = pair(arm, control, measure, difference, p)
    return replace(DATA, comparisons=[*kept, new])


def test_naming_is_said_with_the_numbers() -> None:
    said = " ".join(sentences(DATA)).replace("\u202f", "")
    assert "Circuit: 92% of replies are heard as meant, 45% once every feeling word" in said
    assert "78% without the first sentence. 24% begin like an opener" in said


def test_whether_units_or_descent_do_the_work_depends_on_the_numbers() -> None:
    said = " ".join(sentences(DATA)).replace("\u202f", "")
    # (.885 - .342) / (.921 - .342)
    assert "from 34% to 88% by the same descent, 94% of the way" in said
    assert "the descent does most of the work, whatever the units" in said
    few = changed(random_units_refined_1=(0.4, 0.1), random_units_refined_2=(0.42, 0.1))
    said = " ".join(sentences(few))
    assert "most of the effect needs the circuit's own units" in said
    assert "whatever the units" not in said


def test_what_refining_adds_is_called_naming_only_where_the_run_shows_it() -> None:
    masked = ("circuit", "analytic_circuit", "masked_accuracy")
    assert "naming." in " ".join(sentences(with_pair(*masked, 0.02, 0.6)))
    assert "More than half" in " ".join(sentences(with_pair(*masked, 0.1, 0.01)))
    assert "naming" not in " ".join(sentences(with_pair(*masked, 0.3, 0.001)))


def test_a_difference_that_is_not_told_is_not_claimed() -> None:
    which = ("circuit", "random_units_refined_1", "accuracy")
    unclear = next(s for s in sentences(with_pair(*which, 0.04, 0.3)) if "alike, 1" in s)
    assert unclear.startswith("Circuit against random units refined alike, 1: no difference told")
    clear = next(s for s in sentences(with_pair(*which, 0.24, 0.001)) if "alike, 1" in s)
    assert "+24 points (95 % interval +14 to +34, p = 0.001)" in clear


def test_the_table_holds_every_pair() -> None:
    page = Page(render(sample()))
    rows = {row[0][0]: row[1:] for row in page.rows}
    for c in DATA.comparisons:
        cells = rows[f"{ARMS[c.arm].title} − {ARMS[c.control].title}"]
        place = ["accuracy", "masked_accuracy", "harmonic"].index(c.measure)
        assert float(cells[place][1] or "nan") == c.difference
    assert comparison_card(replace(DATA, comparisons=())) == ""


def test_a_single_scenario_gives_no_verdict() -> None:
    nan = float("nan")
    lone = [replace(c, ci=(nan, nan), p=nan) for c in DATA.comparisons]
    said = " ".join(sentences(replace(DATA, comparisons=lone)))
    assert "against" not in said and "Refining" not in said
    assert "nan" not in comparison_card(replace(DATA, comparisons=lone))


def test_numbers_of_pairs() -> None:
    assert [points(x) for x in (0.064, -0.064, 0.0, -0.003)] == ["+6", "−6", "0", "0"]
    assert (p_value(0.0002), p_value(0.0312), p_value(0.5)) == ("< 0.001", "= 0.031", "= 0.50")
