"""The last stage: metrics.json for programs, report.html for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens import reports
from affectlens.core import EMOTIONS, Site
from affectlens.core.artefact import package_version, read_json, write_json
from affectlens.evaluation import ARMS, ArmMetrics, Reply, StrengthPoint, measure
from affectlens.evaluation.tuning import pooled_by_strength
from affectlens.pipeline.engine import peak_rss_mb
from affectlens.pipeline.steps import EXAMPLE_EVENTS, load_replies

if TYPE_CHECKING:
    from affectlens.circuits import Circuit
    from affectlens.pipeline.context import RunContext
    from affectlens.probes import Directions, Sweep

TOP_NEURONS = 24


def report(run: RunContext, *, stages: Sequence[str]) -> Sequence[str]:
    """Measure the arms, then write ``metrics.json``, ``report.json`` and ``report.html``."""
    from affectlens.circuits import Circuit
    from affectlens.probes import Directions, Sweep

    folder = run.folder
    sweep = Sweep.load(folder / "probes.safetensors")
    directions = Directions.load(folder / "directions.safetensors")
    circuit = Circuit.load(folder / "circuit.safetensors")
    judged = read_json(folder / "judge.json")
    tuning = read_json(folder / "tuning.json")
    replies = {arm: load_replies(folder / "replies" / f"{arm}.jsonl") for arm in ARMS}
    arms = {
        arm: measure(
            rows,
            replies["unsteered"],
            judge=run.judge,
            lexicon=run.lexicon,
            embed=run.embed,
            seed=run.config.seed,
        )
        for arm, rows in replies.items()
    }
    receipts = {name: read_json(folder / "state" / f"{name}.json") for name in stages}
    seconds = {name: float(receipt["seconds"]) for name, receipt in receipts.items()}
    peak = max([peak_rss_mb(), *(float(r["peak_rss_mb"]) for r in receipts.values())])
    metrics = {
        "model": directions.provenance.model_name or run.config.model,
        "model_fingerprint": directions.provenance.model,
        "corpus": "authored",
        "package_version": package_version(),
        "seconds": seconds,
        "peak_rss_mb": round(peak, 1),
        "probe": sweep.to_dict(),
        "directions": {
            "split_half_cosine": float(directions.split_half.mean()),
            "split_half_by_emotion": {
                e: float(directions.split_half[:, i].mean())
                for i, e in enumerate(directions.emotions)
            },
        },
        "circuit": circuit_numbers(circuit),
        "judge": judge_numbers(judged),
        "strengths": tuning["chosen"],
        "arms": {arm: asdict(m) for arm, m in arms.items()},
    }
    write_json(folder / "metrics.json", metrics)
    data = reports.ReportData(
        header=reports.Header(
            model=str(metrics["model"]),
            model_fingerprint=directions.provenance.model,
            corpus="authored (replies, tones, scenarios)",
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            package_version=package_version(),
            seconds=seconds,
            peak_memory=int(peak * 2**20),
            facts={"seed": str(run.config.seed), "test events": str(len(replies["unsteered"]))},
        ),
        probes=probe_figure(sweep),
        directions=direction_figure(directions, sweep.best.layer),
        emotion_map=map_figure(directions, sweep.best.layer),
        circuit=circuit_figure(circuit),
        tuning=tuning_figure(tuning),
        evaluation=evaluation_figure(arms, judged),
        examples=examples(replies, run),
    )
    reports.save(data, folder / "report.json")
    reports.write(data, folder / "report.html")
    return ["metrics.json", "report.json", "report.html"]


def circuit_numbers(circuit: Circuit) -> dict[str, Any]:
    """Sizes and overlaps for metrics.json."""
    return {
        "n_neurons": sum(len(circuit.neurons[e]) for e in circuit.emotions) // len(EMOTIONS),
        "n_heads": sum(len(circuit.heads[e]) for e in circuit.emotions) // len(EMOTIONS),
        "overlap": {kind: circuit.overlap(kind).summary() for kind in ("neurons", "heads")},
    }


def judge_numbers(judged: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy over the unseen groups of both corpora together, and of each alone."""
    corpora = judged["encoder"]["corpora"]
    n = sum(c["n"] for c in corpora.values())
    return {
        "accuracy": sum(c["accuracy"] * c["n"] for c in corpora.values()) / n,
        "by_corpus": {name: c["accuracy"] for name, c in corpora.items()},
        "garbled_given_an_emotion": judged["garbled"]["emotion_found"],
        "lexicon_accuracy": {
            name: c["accuracy"] for name, c in judged["lexicon"]["corpora"].items()
        },
    }


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
        split_half=directions.split_half[rows].numpy(),
        estimator=directions.estimator,
    )


def map_figure(directions: Directions, layer: int) -> reports.EmotionMap:
    """The two principal axes of the emotions' centroids."""
    from affectlens.probes import emotion_map

    found = emotion_map(directions, Site(layer, "resid_post"))
    return reports.EmotionMap(
        found.emotions, found.points.numpy(), [float(x) for x in found.explained]
    )


def circuit_figure(circuit: Circuit) -> reports.CircuitData:
    """Contributions, influence, allocation, overlap."""
    top = min(TOP_NEURONS, circuit.neuron_scores.shape[-1])
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
        reports.StrengthPoint(p.mode, p.emotion, p.strength, p.accuracy, p.perplexity_ratio)
        for p in points
    ]
    shown += [
        reports.StrengthPoint(mode, "", strength, accuracy, ratio)
        for (mode, strength), (accuracy, ratio) in pooled_by_strength(points).items()
    ]
    return reports.Tuning(shown, tuning["chosen"])


def evaluation_figure(
    arms: Mapping[str, ArmMetrics], judged: Mapping[str, Any]
) -> reports.Evaluation:
    """The table of arms, and the judges behind it."""
    return reports.Evaluation(
        labels=EMOTIONS,
        arms=[
            reports.Arm(
                name=name,
                accuracy=m.accuracy,
                low=m.accuracy_ci[0],
                high=m.accuracy_ci[1],
                perplexity_ratio=m.perplexity_ratio,
                distinct_2=m.distinct2,
                repetition=m.repetition,
                capitals=m.capitals,
                topic=m.topic,
                harmonic=m.harmonic,
                per_emotion=m.per_emotion,
                other_judges={"lexicon": m.lexicon_accuracy},
                n=m.n,
            )
            for name, m in arms.items()
        ],
        chance=1 / len(EMOTIONS),
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
            reports.CrossCorpus("its own training texts", asked, c["accuracy"], c["n"])
            for asked, c in corpora.items()
        ],
    )


def examples(replies: Mapping[str, Sequence[Reply]], run: RunContext) -> list[reports.Example]:
    """All emotions and arms side by side, for a few events spread over the test set."""
    events = list(dict.fromkeys(r.event for r in replies["unsteered"]))
    # A step that is no multiple of three, so that the valences differ.
    step = max(1, len(events) // EXAMPLE_EVENTS)
    step += step % 3 == 0 and step > 1
    shown: list[reports.Example] = []
    for event in events[::step][:EXAMPLE_EVENTS]:
        rows = {arm: [r for r in rs if r.event == event] for arm, rs in replies.items()}
        arms = [arm for arm in ("prompted", "residual", "circuit") if rows.get(arm)]
        flat = [r for arm in arms for r in rows[arm]]
        verdicts = run.judge([rows["unsteered"][0].text, *(r.text for r in flat)]).chosen
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
                    for e in EMOTIONS
                },
            )
        )
    return shown


def metrics_of(folder: Path) -> dict[str, Any]:
    """The numbers of a finished run.

    Raises:
        ArtefactError: If there are none.
    """
    return read_json(folder / "metrics.json")
