"""Traces hold the numbers given, in the colours fixed for them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sample import LAYERS, judged, sample, unmeasured

from affectlens import geometry
from affectlens import plotting as figures
from affectlens.circuits.attribution.edge_scores import EdgeScores, Sender
from affectlens.circuits.attribution.scores import UnitScores
from affectlens.circuits.interventions import Receiver
from affectlens.circuits.overlap import Overlap
from affectlens.core import EMOTIONS, DataError, Provenance, Site
from affectlens.evaluation import ARMS, StrengthPoint
from affectlens.geometry.emotion_map import EmotionMap
from affectlens.plotting import DirectionsSummary, SweepSummary, style
from affectlens.plotting import sweeps as drawn
from affectlens.plotting.geometry import _frame, _place_labels
from affectlens.plotting.studies import StudySummary, study_figure
from affectlens.plotting.sweeps import DepthCurve, SweepsSummary
from affectlens.probes import vad_map
from affectlens.probes.calibration import Quality, quality
from tests.circuits.test_efficiency import planted
from tests.probes.test_vad_map import rated

DATA = sample()


WRITTEN = {"head 0.1": "promotes ' dread'; suppresses ' joy'"}


def unit_scores() -> UnitScores:
    heads = torch.arange(24.0).view(2, 3, 4) - 12
    none = torch.full((2, 3, 2), torch.nan)
    return UnitScores("exact", ("anger", "fear"), heads, none, none, Provenance("unit_scores"))


def edge_scores() -> EdgeScores:
    values = torch.tensor([[[torch.nan, 1.0], [torch.nan, 0.0]], [[0.2, -3.0], [torch.nan, 0.5]]])
    return EdgeScores(
        "EAP",
        ("anger", "fear"),
        (Sender(0, "head", 1), Sender(0, "mlp")),
        (Receiver(0, "mlp"), Receiver(1, "final")),
        values,
        Provenance("edge_scores"),
    )


def trusted() -> Quality:
    generator = np.random.default_rng(0)
    p = generator.dirichlet(np.ones(3), size=90)
    truth = np.eye(3)[[generator.choice(3, p=row) for row in p]]
    return quality(p, truth, np.arange(90) // 3, bins=5, draws=50)


def sweeps() -> SweepsSummary:
    """Two made-up sweeps of one model, their transfer and one learning curve."""
    curves = [
        DepthCurve(
            "m", corpus, "emotion", "logistic", "resid_post", "accuracy", (0, 0, 1),
            (0.0, 0.5, 1.0), (0.3, 0.5 + i / 10, 0.4), (0.2, 0.4, 0.3), (0.4, 0.6, 0.5), 1, 0.25,
            {"untrained": (0.3, 0.3, 0.2)},
        )
        for i, corpus in enumerate(("one", "two"))
    ]  # fmt: skip
    names = {"model": "m", "target": "emotion", "probe": "logistic", "kind": "resid_post"}
    cells = [("one", "one", 0.5), ("one", "two", 0.3), ("two", "one", 0.2), ("two", "two", 0.6)]
    transfer = [
        {**names, "trained_on": a, "tested_on": b, "value": v if chosen else 0.0, "chosen": chosen}
        for a, b, v in cells
        for chosen in (False, True)
    ]
    learning = [
        {**names, "corpus": "one", "groups": n, "value": v, "low": v - 0.1, "high": v + 0.1,
         "measure": "accuracy"}
        for n, v in ((2, 0.3), (8, 0.5))
    ]  # fmt: skip
    scale = [
        {**names, "corpus": "one", "model": m, "parameters": n, "value": v, "low": v - 0.1,
         "high": v + 0.2, "depth": 0.5, "measure": "accuracy"}
        for m, n, v in (("small", 10, 0.3), ("large", 100, 0.5))
    ]  # fmt: skip
    return SweepsSummary(curves, transfer=transfer, learning=learning, scale=scale)


def study(name: str) -> StudySummary:
    """A made-up study: two series over two places, in one panel."""
    measure = {"malleability": "change of probability", "dialogue": "probability"}
    rows = [
        {"panel": "p", "series": series, "x": x, "measure": measure.get(name, "accuracy"),
         "value": 0.5 + x / 10, "low": 0.4, "high": 0.8, "p": 0.5, "beside": 0.2, "chosen": True}
        for series in ("fear", "anger")
        for x in (0, 1)
    ]  # fmt: skip
    return StudySummary(name, rows, {"systems": {"p": "Be calm."}})


def relations() -> dict[str, Any]:
    """Of made-up rows: 5 groups under 4 emotions at 2 sites, and 60 rated rows."""
    grid = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0))
    labels = ("anger", "fear", "happiness", "sadness")
    site = Site(0, "resid_post")
    found = geometry.directions({site: grid, Site(1, "resid_post"): grid + 1}, emotions=labels)
    parts = geometry.emotion_components(
        {site: grid}, site, emotions=labels, permutations=9, draws=9
    )
    store, corpus = rated(60)
    return {
        "component_bars": figures.component_bars(parts),
        "emotion_tree": figures.emotion_tree(geometry.emotion_tree(found, site)),
        "similarity_heatmap": figures.similarity_heatmap(geometry.similarity(found)),
        "vad_curves": figures.vad_curves(vad_map(store, corpus, draws=9)),
    }


def all_figures() -> dict[str, Any]:
    d, c, t = DATA.directions, DATA.circuit, DATA.tuning
    assert DATA.probes and d and DATA.emotion_map and c and t
    assert DATA.evidence and DATA.evidence.faithfulness and DATA.evidence.choices
    return {
        "probe_accuracy": figures.probe_accuracy(DATA.probes),
        "cosine_heatmap": figures.cosine_heatmap(d),
        "split_half": figures.split_half(d),
        "emotion_map": figures.emotion_map(DATA.emotion_map),
        "contribution_map": figures.contribution_map(c),
        "influence_profile": figures.influence_profile(c),
        "allocation_bars": figures.allocation_bars(c),
        "overlap_heatmap": figures.overlap_heatmap(c),
        "k_curves": figures.k_curves(DATA.evidence.curves["ablation"]),
        "f_curves": figures.f_curves(DATA.evidence.faithfulness),
        "choices": figures.choices(DATA.evidence.choices),
        "strength_curves": figures.strength_curves(t.points[:42], t.chosen["residual"]),
        "arms_bars": figures.arms_bars(DATA.arms),
        "per_emotion_heatmap": figures.per_emotion_heatmap(DATA.arms),
        "efficiency_curves": figures.efficiency_curves(planted()),
        "effect_map": figures.effect_map(unit_scores(), "fear", direct=unit_scores()),
        "edge_sankey": figures.edge_sankey(edge_scores(), "fear", count=2, written=WRITTEN),
        "confusion": figures.confusion(DATA.judges[0]),
        "reliability": figures.reliability(trusted()),
        "depth_curves": drawn.depth_curves(sweeps()),
        "transfer_heatmap": drawn.transfer_heatmap(sweeps()),
        "learning_curves": drawn.learning_curves(sweeps()),
        "scale_points": drawn.scale_points(sweeps()),
        "study": study_figure(study("persistence")),
        **relations(),
    }


FIGURES = all_figures()


def traces(figure: str, **match: Any) -> list[Any]:
    found = FIGURES[figure].data
    return [t for t in found if all(getattr(t, key) == value for key, value in match.items())]


def test_maps_and_edges_hold_the_scores() -> None:
    direct, total = FIGURES["effect_map"].data
    for panel in (direct, total):
        np.testing.assert_array_equal(np.asarray(panel.z), unit_scores().heads[1].numpy())
    assert (total.zmin, total.zmax) == (-11.0, 11.0)
    (flow,) = FIGURES["edge_sankey"].data
    assert list(flow.node.label) == ["head 0.1", "mlp 0", "into unembedding"]
    assert list(flow.link.value) == [3.0, 0.5] and list(flow.link.customdata) == [-3.0, 0.5]
    assert list(flow.link.source) == [0, 1] and list(flow.link.target) == [2, 2]
    assert flow.node.customdata[0] == WRITTEN["head 0.1"]


def test_reliability_holds_shares_and_intervals() -> None:
    line, curve = FIGURES["reliability"].data
    found = trusted()
    assert list(line.x) == list(line.y) == [0, 1]
    assert list(curve.x) == list(found.claimed) and list(curve.y) == list(found.found)
    top = np.asarray(curve.y) + np.asarray(curve.error_y.array)
    np.testing.assert_allclose(top, found.high)
    assert f"{found.ece:.3f}" in curve.name and sum(curve.customdata) == 90


def test_sweeps_hold_scores_by_depth_transfer_and_size() -> None:
    for corpus, top in (("one", 0.5), ("two", 0.6)):
        (line,) = traces("depth_curves", name=f"m · {corpus} · emotion · logistic")
        assert list(line.x) == [0.0, 0.5, 1.0] and list(line.y) == [0.3, top, 0.4]
        assert [tuple(ends) for ends in line.customdata][1] == (0.4, 0.6, 0)
    (beside,) = traces("depth_curves", name="untrained, two")
    assert list(beside.y) == [0.3, 0.3, 0.2]
    (chance,) = traces("depth_curves", name="always the same, 0.25")
    assert list(chance.y) == [0.25, 0.25]
    (cells,) = FIGURES["transfer_heatmap"].data
    assert list(cells.y) == list(cells.x) == ["one", "two"]
    np.testing.assert_array_equal(np.asarray(cells.z), [[0.5, 0.3], [0.2, 0.6]])
    (line,) = FIGURES["learning_curves"].data
    assert list(line.x) == [2, 8] and list(line.y) == [0.3, 0.5]
    nothing = SweepsSummary(sweeps().curves)
    (points,) = FIGURES["scale_points"].data
    assert list(points.x) == [10, 100] and list(points.y) == [0.3, 0.5]
    assert list(points.error_y.arrayminus) == pytest.approx([0.1, 0.1])
    for draw in (drawn.transfer_heatmap, drawn.learning_curves, drawn.scale_points):
        with pytest.raises(DataError, match=r"There |No two"):
            draw(nothing)
    with pytest.raises(DataError, match="pearson"):
        drawn.depth_curves(nothing, "pearson")


def test_studies_hold_their_lines_and_what_stands_beside() -> None:
    (line,) = traces("study", name="fear")
    assert list(line.x) == [0, 1] and list(line.y) == [0.5, 0.6]
    (band,) = [t for t in FIGURES["study"].data if t.fill == "toself"][:1]
    assert list(band.y) == [0.8, 0.8, 0.4, 0.4]
    bars = study_figure(study("malleability")).data
    assert [list(bar.y) for bar in bars] == [[0.5, 0.6]] * 2
    assert list(bars[0].error_y.array) == pytest.approx([0.3, 0.2])
    dotted = [t for t in study_figure(study("dialogue")).data if t.line.dash == "dot"]
    assert [list(t.y) for t in dotted] == [[0.2, 0.2]] * 2
    with pytest.raises(DataError, match="no figure of the study"):
        study_figure(study("unheard"))


def test_every_public_figure_is_tested_here():
    assert set(FIGURES) == set(figures.FIGURES)


def test_efficiency_curves_hold_every_choice_and_the_band_of_draws():
    curve = planted()
    masked = [t for t in traces("efficiency_curves") if t.yaxis == "y2"]
    (line,) = [t for t in masked if t.name == "circuit"]
    np.testing.assert_allclose(line.y, curve.heights("circuit").mean(1))
    (mean,) = [t for t in masked if t.name == "random (2)"]
    np.testing.assert_allclose(mean.y, curve.heights("random").mean(1))
    top, bottom = [t for t in masked if t.showlegend is False and t.line.width == 0]
    draws = np.stack([curve.heights(f"random_{n}").mean(1) for n in (1, 2)])
    np.testing.assert_allclose(top.y, draws.max(0))
    np.testing.assert_allclose(bottom.y, draws.min(0))
    one = figures.efficiency_curves(curve, "fear")
    rows = np.array(curve.targets) == "fear"
    (own,) = [t for t in one.data if t.name == "circuit" and t.yaxis == "y2"]
    np.testing.assert_allclose(own.y, curve.heights("circuit")[:, rows].mean(1))


def test_probe_accuracy_holds_curve_band_and_chance():
    p = DATA.probes
    assert p is not None
    (line,) = traces("probe_accuracy", name="probe")
    assert list(line.x) == list(LAYERS)
    np.testing.assert_array_equal(line.y, p.accuracy)
    (band,) = traces("probe_accuracy", name="95 % interval")
    np.testing.assert_array_equal(band.y, [*p.high, *np.flip(p.low)])
    np.testing.assert_array_equal(band.x, [*LAYERS, *reversed(LAYERS)])
    (ring,) = traces("probe_accuracy", name="chosen")
    assert (ring.x[0], ring.y[0]) == (p.best, max(p.accuracy))
    (chance,) = traces("probe_accuracy", name="chance 14%")
    assert set(chance.y) == {1 / 7}


def test_best_is_an_index_into_the_layers_given():
    numbers = SweepSummary([4, 8, 12], [0.1, 0.9, 0.2], [0] * 3, [1] * 3, 0.1, 1)
    figure = figures.probe_accuracy(numbers)
    (ring,) = [t for t in figure.data if t.name == "chosen"]
    assert ring.x[0] == 8


def test_heat_maps_hold_their_matrices():
    d, c = DATA.directions, DATA.circuit
    assert d and c
    np.testing.assert_array_equal(FIGURES["cosine_heatmap"].data[0].z, d.cosines)
    np.testing.assert_array_equal(FIGURES["contribution_map"].data[0].z, np.asarray(c.heads)[0])
    scale = FIGURES["contribution_map"].data[0]
    assert scale.zmax == -scale.zmin == np.abs(np.asarray(c.heads)[0]).max()


def test_lines_hold_one_emotion_each_in_its_colour():
    d, c = DATA.directions, DATA.circuit
    assert d and c
    for index, emotion in enumerate(EMOTIONS):
        (half,) = traces("split_half", name=emotion)
        np.testing.assert_array_equal(half.y, np.asarray(d.split_half)[:, index])
        attention, mlp = traces("influence_profile", name=emotion)
        np.testing.assert_array_equal(attention.y, np.asarray(c.influence)[index, :, 0])
        np.testing.assert_array_equal(mlp.y, np.asarray(c.influence)[index, :, 1])
        heads, neurons = traces("allocation_bars", name=emotion)
        np.testing.assert_array_equal(heads.y, np.asarray(c.counts)[index, :, 0])
        np.testing.assert_array_equal(neurons.y, np.asarray(c.counts)[index, :, 1])
        (point,) = [t for t in traces("emotion_map", name=emotion) if t.text]
        curve = traces("strength_curves", name=emotion)[0]
        assert {
            half.line.color,
            attention.line.color,
            mlp.line.color,
            heads.marker.color,
            neurons.marker.color,
            point.marker.color,
            curve.line.color,
        } == {style.emotion_colour(emotion)}
    assert attention.yaxis == "y" and mlp.yaxis == "y2"


def overlap(observed: Any, expected: Any) -> Overlap:
    none = np.zeros((2, 2))
    return Overlap(("a", "b"), np.asarray(observed), np.asarray(expected), none, none)


def test_overlap_is_shown_relative_to_chance():
    observed, expected = np.array([[9, 6], [3, 9]]), np.array([[9, 2], [3, 9]])
    (trace,) = figures.overlap_heatmap(overlap(observed, expected)).data
    assert trace.text[0][1] == "3.0×" and trace.z[0][1] == pytest.approx(np.log2(3))
    assert trace.text[1][0] == "1.0×" and trace.z[1][0] == 0
    assert trace.text[0][0] == "" and np.isnan(trace.z[0][0])


def test_overlap_without_a_chance_level_is_a_gap_and_none_at_all_is_the_end_of_the_scale():
    (trace,) = figures.overlap_heatmap(overlap([[5, 0], [4, 5]], [[5, 2], [0, 5]])).data
    assert trace.text[1][0] == "" and np.isnan(trace.z[1][0])
    assert trace.text[0][1] == "0.0×" and trace.z[0][1] == trace.zmin


def test_strength_curves_sort_points_and_ring_the_chosen_one():
    points = [StrengthPoint("circuit", "fear", s, s / 2, 1 + s, 0.5) for s in (1.0, 0.0, 0.5)]
    figure = figures.strength_curves(points, {"fear": 0.5})
    accuracy, ratio = figure.data
    assert list(accuracy.x) == [0.0, 0.5, 1.0]
    assert list(accuracy.y) == [0.0, 0.25, 0.5]
    assert list(ratio.y) == [1.0, 1.5, 2.0]
    assert np.argmax(accuracy.marker.size) == 1 and accuracy.marker.size[0] == 6


def test_arms_bars_hold_accuracy_interval_and_ratio():
    arms = list(DATA.arms.values())
    bar, point, ratio, masked = FIGURES["arms_bars"].data
    names = [ARMS[name].title for name in DATA.arms]
    assert "circuit, not refined" in names
    assert list(bar.y) == list(point.y) == list(ratio.y) == list(masked.y) == names
    np.testing.assert_array_equal(masked.x, [arm.masked_accuracy for arm in arms])
    (line,) = FIGURES["arms_bars"].layout.shapes
    assert line.x0 == line.x1 == DATA.arms["unsteered"].accuracy
    np.testing.assert_array_equal(bar.x, [arm.accuracy for arm in arms])
    np.testing.assert_array_equal(point.x, bar.x)
    low, high = np.transpose([arm.accuracy_ci for arm in arms])
    np.testing.assert_allclose(np.add(point.x, point.error_x.array), high)
    np.testing.assert_allclose(np.subtract(point.x, point.error_x.arrayminus), low)
    np.testing.assert_array_equal(ratio.x, [arm.perplexity_ratio for arm in arms])


def test_an_arm_without_a_ratio_still_has_its_bar():
    bar, _, ratio = figures.arms_bars({"prompted": unmeasured(0.2)}).data
    assert bar.x == (0.2,) and ratio.text == ("",)


def test_an_arm_without_an_interval_has_no_error_bar():
    _, point, _ = figures.arms_bars({"prompted": unmeasured(0.2)}).data
    assert point.error_x.array == point.error_x.arrayminus == (0.0,)


def test_confusion_rows_sum_to_one_and_keep_the_counts():
    report = judged("j", "abc", one=[[2, 1, 0], [0, 1, 0]], two=[[1, 0, 0], [0, 1, 2]])
    (trace,) = figures.confusion(report).data
    np.testing.assert_array_equal(trace.z[:2], [[0.75, 0.25, 0], [0, 0.5, 0.5]])
    assert np.isnan(np.asarray(trace.z[2], dtype=float)).all()
    np.testing.assert_array_equal(trace.customdata[0], [3, 1, 0])


def test_torch_tensors_are_taken_as_they_are():
    import torch

    (trace,) = figures.cosine_heatmap(DirectionsSummary(EMOTIONS, torch.eye(6), 0)).data
    np.testing.assert_array_equal(trace.z, np.eye(6))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_hold_only_colours_the_dark_theme_knows(name: str):
    def strings(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from itertools.chain.from_iterable(map(strings, value.values()))
        elif isinstance(value, list):
            yield from itertools.chain.from_iterable(map(strings, value))

    used = {
        s
        for s in strings(json.loads(FIGURES[name].to_json()))
        if s.startswith(("#", "rgb")) and s != "rgba(0,0,0,0)"
    }
    assert used and used <= set(style.DARK), used - set(style.DARK)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_plain_json(name: str):
    # Binary arrays would be opaque to whoever reads the page's data blocks.
    assert "bdata" not in FIGURES[name].to_json()


def test_map_labels_keep_clear_of_each_other():
    rng = np.random.default_rng(3)
    for _ in range(20):
        xy = rng.normal(size=(6, 2))
        frame = _frame(xy)
        pixel = (frame[1] - frame[0]) / 300
        places = _place_labels(EMOTIONS, xy, frame)
        boxes = []
        for label, (x, y), place in zip(EMOTIONS, xy / pixel, places, strict=True):
            vertical, horizontal = place.split()
            width = 7 * len(label)
            cx = x + {"left": -1, "center": 0, "right": 1}[horizontal] * (7 + width / 2)
            cy = y + {"bottom": -1, "middle": 0, "top": 1}[vertical] * 15
            boxes.append((cx - width / 2, cx + width / 2, cy - 7, cy + 7))
        # Points may coincide by chance; then something has to give. Otherwise nothing overlaps.
        gaps = [np.hypot(*(a - b)) for a, b in itertools.combinations(xy / pixel, 2)]
        if min(gaps) < 35:
            continue
        for a, b in itertools.combinations(boxes, 2):
            apart = a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2]
            assert apart, (places, xy)


def test_map_of_a_single_label_and_of_zeros():
    import torch

    for labels, points, explained in (
        (("only",), [[0.0, 0.0]], [math.nan, math.nan]),
        (("a", "b"), [[1.0, 0.0], [-1.0, 0.0]], [1.0, 0.0]),
    ):
        found = EmotionMap(labels, torch.tensor(points), torch.tensor(explained), torch.eye(2))
        figures.emotion_map(found)


def test_k_curves_hold_the_change_and_the_band_of_random_units():
    assert DATA.evidence
    curve = DATA.evidence.curves["ablation"]
    for e, emotion in enumerate(EMOTIONS):
        (line,) = traces("k_curves", name=emotion)
        np.testing.assert_allclose(line.y, np.asarray(curve.change)[e])
        assert list(line.x) == ["1", "4", "16", "64"]
    band = traces("k_curves", name="random units")[2]
    np.testing.assert_allclose(band.y[:4], np.asarray(curve.random_high)[2])
    np.testing.assert_allclose(band.y[4:], np.asarray(curve.random_low)[2][::-1])
    (one,) = [t for t in figures.k_curves(curve, "fear").data if t.name == "fear"]
    np.testing.assert_allclose(one.y, np.asarray(curve.change)[2])


def test_f_curves_say_both_areas():
    titles = [note.text for note in FIGURES["f_curves"].layout.annotations]
    assert titles[0] == "anger: CPR 0.80, CMD 0.20" and len(titles) == 6
    assert DATA.evidence and DATA.evidence.faithfulness
    (line,) = traces("f_curves", name="sadness")
    np.testing.assert_allclose(line.y, np.asarray(DATA.evidence.faithfulness.f)[4])


def test_choices_are_shares():
    assert DATA.evidence and DATA.evidence.choices
    (cells,) = FIGURES["choices"].data
    np.testing.assert_allclose(cells.z, np.asarray(DATA.evidence.choices.after))
    before = figures.choices(DATA.evidence.choices, "before").data[0]
    np.testing.assert_allclose(before.z, np.asarray(DATA.evidence.choices.before))


def test_numbers_of_a_curve_are_those_of_its_effects():
    from affectlens.circuits.evidence import AblationCurve
    from affectlens.core import Provenance
    from affectlens.plotting import CurveSummary

    rng = np.random.default_rng(0)
    random = rng.normal(size=(2, 2, 3, 8))
    random[:, :, 0, :4] = np.nan
    curve = AblationCurve(
        ("anger", "fear"), ("anger", "fear"), (1, 2), tuple("abcdefgh"), np.ones((8, 2)),
        rng.normal(size=(2, 2, 8, 2)), random,
        Provenance("ablation", parameters={"kind": "heads", "by": "zero"}),
    )  # fmt: skip
    found = CurveSummary.of(curve)
    assert (found.units, found.by, found.draws) == ("heads", "zero", 3)
    np.testing.assert_allclose(np.asarray(found.change)[1, 0], curve.changes[1, 0, :, 1].mean())
    means = [np.nanmean(random[0, 1, d]) for d in range(3)]
    assert np.asarray(found.random_low)[0, 1] == pytest.approx(min(means))
    assert np.asarray(found.random_high)[0, 1] == pytest.approx(max(means))
    assert list(figures.plot(curve).data[2].y) == list(np.asarray(found.change)[0])
