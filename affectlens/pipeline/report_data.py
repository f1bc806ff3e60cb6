"""What a run found, as the data of the report's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens import reports
from affectlens.core import Site
from affectlens.evaluation import ARMS, ArmMetrics, Comparison, Reply, StrengthPoint
from affectlens.evaluation.tuning import pooled_by_strength

if TYPE_CHECKING:
    from affectlens.circuits import Circuit
    from affectlens.evaluation.judges import Judge
    from affectlens.geometry import Directions
    from affectlens.pipeline.settings import ReportSettings
    from affectlens.probes import Sweep


FITTED_ON = {"encoder": "its own training texts", "lexicon": "nothing: a word list"}
"""What each judge has learned from."""


def probe_figure(sweep: Sweep) -> reports.Probes:
    """Accuracy by layer, embeddings as a baseline."""
    rows = [i for i, s in enumerate(sweep.sites) if s.kind == "resid_post"]
    plain = sweep.to_dict()
    layers = [sweep.sites[i].layer for i in rows]
    baselines = {"majority": sweep.majority}
    if plain["embeddings"] is not None:
        baselines["embeddings"] = plain["embeddings"]
    return reports.Probes(
        layers=layers,
        accuracy=sweep.accuracy[rows].numpy(),
        low=sweep.ci[rows, 0].numpy(),
        high=sweep.ci[rows, 1].numpy(),
        chance=1 / len(sweep.classes),
        best=layers.index(sweep.best.layer),
        baselines=baselines,
    )


def direction_figure(directions: Directions, layer: int) -> reports.Directions:
    """Cosines at one layer, split-half cosines at all."""
    rows = [i for i, s in enumerate(directions.sites) if s.kind == "resid_post"]
    return reports.Directions(
        labels=directions.emotions,
        cosines=directions.cosine_matrix(Site(layer, "resid_post")).numpy(),
        layer=layer,
        layers=[directions.sites[i].layer for i in rows],
        split_half=None if (s := directions.split_half) is None else s[rows].numpy(),
        estimator=directions.estimator,
    )


def map_figure(directions: Directions, layer: int) -> reports.EmotionMap:
    """The two principal axes of the emotions' centroids."""
    from affectlens.geometry import emotion_map

    found = emotion_map(directions, Site(layer, "resid_post"))
    return reports.EmotionMap(
        found.emotions, found.points.numpy(), [float(x) for x in found.explained]
    )


def circuit_figure(circuit: Circuit, top_neurons: int) -> reports.CircuitData:
    """Contributions, influence, allocation, overlap."""
    top = min(top_neurons, circuit.neuron_scores.shape[-1])
    neurons = circuit.neuron_scores.topk(top, dim=-1).values
    overlap = circuit.overlap("neurons")
    return reports.CircuitData(
        labels=circuit.emotions,
        layers=list(range(circuit.n_layers)),
        heads=circuit.head_scores.numpy(),
        neurons=neurons.numpy(),
        influence=None if circuit.influence is None else circuit.influence.chosen.numpy(),
        counts=circuit.allocation.numpy(),
        overlap=overlap.jaccard,
        overlap_chance=overlap.expected,
    )


def tuning_figure(tuning: Mapping[str, Any]) -> reports.Tuning:
    """Strength against accuracy and fluency, per emotion and pooled."""
    points = [StrengthPoint(**p) for p in tuning["points"]]
    shown = [
        reports.StrengthPoint(p.arm, p.emotion, p.strength, p.accuracy, p.perplexity_ratio)
        for p in points
    ]
    shown += [
        reports.StrengthPoint(arm, "", strength, accuracy, ratio)
        for (arm, strength), (accuracy, ratio) in pooled_by_strength(points).items()
    ]
    return reports.Tuning(shown, tuning["chosen"])


def evaluation_figure(
    arms: Mapping[str, ArmMetrics],
    comparisons: Sequence[Comparison],
    judged: Mapping[str, Any],
    emotions: Sequence[str],
) -> reports.Evaluation:
    """The table of arms, their comparison in pairs, and the judges behind them."""
    return reports.Evaluation(
        labels=emotions,
        arms=[
            reports.Arm(
                name=name,
                title=ARMS[name].title if name in ARMS else "",
                accuracy=m.accuracy,
                low=m.accuracy_ci[0],
                high=m.accuracy_ci[1],
                masked=reports.Share(m.masked_accuracy, *m.masked_accuracy_ci),
                later=reports.Share(m.later_accuracy, *m.later_accuracy_ci),
                copied=reports.Share(m.copied_openers, *m.copied_openers_ci),
                perplexity_ratio=m.perplexity_ratio,
                distinct_2=m.distinct2,
                repetition=m.repetition,
                capitals=m.capitals,
                topic=m.topic,
                harmonic=m.harmonic,
                masked_harmonic=m.masked_harmonic,
                per_emotion=m.per_emotion,
                other_judges={"lexicon": m.lexicon_accuracy},
                n=m.n,
            )
            for name, m in arms.items()
        ],
        false_hits=arms["unsteered"].accuracy if "unsteered" in arms else None,
        comparisons=[
            reports.Comparison(c.arm, c.control, c.measure, c.difference, *c.ci, c.p)
            for c in comparisons
        ],
        judges=[judge_figure(name, judged[name]) for name in ("encoder", "lexicon")],
    )


def judge_figure(name: str, judged: Mapping[str, Any]) -> reports.Judge:
    """Confusions over all unseen groups, and accuracy by corpus."""
    corpora = judged["corpora"]
    first = next(iter(corpora.values()))
    labels = list(first["labels"])
    counts = np.sum([np.asarray(c["confusion"], dtype=float) for c in corpora.values()], axis=0)
    square = np.zeros((len(labels), len(labels)))
    square[: len(counts)] = counts  # tones are rows; nothing is truly garbled here
    return reports.Judge(
        name,
        labels,
        square,
        [
            reports.CrossCorpus(FITTED_ON[name], asked, c["accuracy"], c["n"])
            for asked, c in corpora.items()
        ],
    )


def examples(
    replies: Mapping[str, Sequence[Reply]], judge: Judge, settings: ReportSettings
) -> list[reports.Example]:
    """All emotions and arms side by side, for a few events spread over the test set."""
    events = list(dict.fromkeys(r.event for r in replies["unsteered"]))
    # A step that is no multiple of three, so that the valences differ.
    step = max(1, len(events) // settings.example_events)
    step += step % 3 == 0 and step > 1
    shown: list[reports.Example] = []
    for event in events[::step][: settings.example_events]:
        rows = {arm: [r for r in rs if r.event == event] for arm, rs in replies.items()}
        arms = [arm for arm in ("prompted", "residual", "circuit") if rows.get(arm)]
        flat = [r for arm in arms for r in rows[arm]]
        verdicts = judge([rows["unsteered"][0].text, *(r.text for r in flat)]).chosen
        judged = {id(r): v for r, v in zip(flat, verdicts[1:], strict=True)}
        shown.append(
            reports.Example(
                prompt=rows["unsteered"][0].prompt,
                unsteered=reports.Reply(rows["unsteered"][0].text, verdicts[0]),
                replies={
                    e: {
                        arm: reports.Reply(r.text, judged[id(r)])
                        for arm in arms
                        for r in rows[arm]
                        if r.emotion == e
                    }
                    for e in settings.emotions
                },
            )
        )
    return shown
