"""A made-up run with plausible curves: 30 layers, 9 heads, six emotions.

No number in here was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import nan
from typing import Any

import numpy as np
import torch

from affectlens.circuits.overlap import Overlap
from affectlens.core import EMOTIONS
from affectlens.evaluation import ARMS, ArmMetrics, Comparison, Reply, StrengthPoint
from affectlens.evaluation.judges.base import JUDGED
from affectlens.geometry.emotion_map import EmotionMap
from affectlens.plotting import (
    CircuitSummary,
    DirectionsSummary,
    EvidenceSummary,
    SweepSummary,
)
from affectlens.plotting.evidence_summary import ChoiceSummary, CurveSummary, LeftSummary
from affectlens.reports import Example, Header, Heard, ReportData, Tuning

LAYERS = tuple(range(30))
HEADS, RANKS = 9, 24


def _probes(rng: np.random.Generator) -> SweepSummary:
    depth = np.array(LAYERS) / 29
    accuracy = 0.78 + 0.15 * np.exp(-(((depth - 0.52) / 0.33) ** 2)) + rng.normal(0, 0.004, 30)
    return SweepSummary(
        layers=LAYERS,
        accuracy=accuracy,
        low=accuracy - 0.035,
        high=accuracy + 0.03,
        chance=1 / 7,
        best=int(accuracy.argmax()),
        control=0.15 + rng.normal(0, 0.01, 30),
        baselines={"bag of words": 0.61, "the model asked in words": 0.24},
    )


def _geometry(rng: np.random.Generator) -> tuple[DirectionsSummary, EmotionMap]:
    # Valence, arousal and four private axes give cosines of the usual shape.
    core = np.array([[-0.6, 0.6], [-0.7, 0.2], [-0.6, 0.5], [0.9, 0.3], [-0.6, -0.7], [0.5, 0.7]])
    vectors = np.hstack([core, 0.55 * np.eye(6)])
    vectors -= vectors.mean(0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    _, singular, axes = np.linalg.svd(vectors, full_matrices=False)
    depth = np.array(LAYERS)[:, None] / 29
    halves = 0.87 - 0.3 * np.exp(-depth * 6) - np.array([0.05, 0.12, 0.07, 0, 0.02, 0.09])
    halves = halves + rng.normal(0, 0.008, (30, 6))
    return (
        DirectionsSummary(EMOTIONS, unit @ unit.T, 15, LAYERS, halves),
        EmotionMap(
            EMOTIONS,
            torch.tensor(vectors @ axes[:2].T),
            torch.tensor((singular**2 / (singular**2).sum())[:2]),
            torch.tensor(axes[:2]),
        ),
    )


def _circuit(rng: np.random.Generator) -> CircuitSummary:
    depth = np.array(LAYERS) / 29
    grows = (0.05 + depth**2)[None, :, None]
    heads = rng.standard_t(3, (6, 30, HEADS)) * 0.09 * grows
    for emotion in range(6):
        for _ in range(5):
            heads[emotion, rng.integers(12, 29), rng.integers(HEADS)] += 0.45
    decay = np.exp(-np.arange(RANKS) / rng.uniform(2.5, 9, (6, 30, 1)))
    neurons = 0.3 * grows * decay * rng.uniform(0.5, 1.6, (6, 30, 1))
    centre = rng.uniform(0.42, 0.58, (6, 1, 1))
    shape = np.exp(-(((depth[None, :, None] - centre) / 0.25) ** 2))
    influence = shape * np.array([0.6, 1.0]) + rng.normal(0, 0.05, (6, 30, 2)) - 0.05
    weight = np.clip(influence, 0, None)
    share = weight / weight.sum(axis=1, keepdims=True)
    counts = np.round(np.array([2, 4]) + share * np.array([60, 270])).astype(int)
    overlap_chance = np.full((6, 6), 21.0) + rng.normal(0, 1, (6, 6))
    overlap_chance = (overlap_chance + overlap_chance.T) / 2
    kinship = np.full((6, 6), 1.2)
    kinship[0, 1] = kinship[1, 0] = 3.4
    kinship[0, 2] = kinship[2, 0] = 2.2
    kinship[3, 5] = kinship[5, 3] = 2.6
    kinship[3, 4] = kinship[4, 3] = 0.6
    return CircuitSummary(
        EMOTIONS,
        LAYERS,
        heads=heads,
        neurons=neurons,
        influence=influence,
        counts=counts,
        overlap=Overlap(
            EMOTIONS, overlap_chance * kinship, overlap_chance, np.ones((6, 6)), np.ones((6, 6))
        ),
    )


def _evidence(rng: np.random.Generator) -> EvidenceSummary:
    counts, shares = (1, 4, 16, 64), (0.1, 1.0, 10.0, 50.0, 100.0)
    rises = np.linspace(0.01, 0.09, 4) * rng.uniform(0.5, 1.4, (6, 1))
    random = np.linspace(0.001, 0.012, 4) * np.ones((6, 1))

    def curve(kind: str, scale: float) -> CurveSummary:
        low, high = random - 0.008, random + 0.01
        given = {"random": random, "random_low": low, "random_high": high}
        return CurveSummary(
            EMOTIONS, counts, rises * scale, rises * 0.3, **given, kind=kind, units="neurons",
            by="mean", texts=16, draws=20,
        )  # fmt: skip

    grows = np.clip(np.log10(np.array(shares)) / 4 + 0.5, 0, 1.1)
    f = np.minimum(grows * rng.uniform(0.9, 1.2, (6, 1)), 1.15)
    f[:, -1] = 1.0
    stays = rng.dirichlet(np.full(6, 0.4), 6)
    moved = 0.6 * np.eye(6) + 0.4 * stays
    said = {"necessary": "passed (0.068 against 0.007, p 0.0002)", "sufficient": "failed (0.120)",
            "specific": "failed (0.068 against 0.060, p 0.4)", "stable": "untested"}  # fmt: skip
    return EvidenceSummary(
        said={emotion: said for emotion in EMOTIONS},
        what={"necessary": "fall of the margin", "sufficient": "share that is kept"},
        curves={"ablation": curve("ablation", 1.0), "enhancement": curve("enhancement", 0.8)},
        faithfulness=LeftSummary(
            EMOTIONS, shares, f, f * 0.4, cpr=(0.8,) * 6, cmd=(0.2,) * 6, circuit=(0.12,) * 6,
            circuit_random=(0.02,) * 6, without=(0.7,) * 6, texts=16,
            hypotheses={"sufficiency": ("shown (p 0.003)",) * 6},
        ),
        choices=ChoiceSummary(
            EMOTIONS, EMOTIONS, stays, moved, stays,
            ("identity", "salience", "nothing", "identity", "identity", "nothing"),
        ),
        enough=dict.fromkeys(EMOTIONS[:5], "3 heads and 461 neurons (1 %) keep 0.620"),
    )  # fmt: skip


def _tuning(rng: np.random.Generator) -> Tuning:
    points: list[StrengthPoint] = []
    chosen: dict[str, dict[str, float]] = {}
    for arm, top, cost in (("residual", 0.78, 1.0), ("circuit", 0.74, 0.7)):
        chosen[arm] = {}
        for index, emotion in enumerate(EMOTIONS):
            ceiling = top - 0.07 * (index % 3)
            for strength in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5):
                rise = 1 / (1 + np.exp(-6 * (strength - 0.62 - 0.05 * index)))
                accuracy = float(np.clip(0.12 + ceiling * rise + rng.normal(0, 0.015), 0, 1))
                ratio = float(np.exp(cost * strength**1.6 * (1 + 0.12 * (index % 4))))
                points.append(
                    StrengthPoint(arm, emotion, strength, accuracy, ratio, accuracy / ratio)
                )
            chosen[arm][emotion] = (0.75, 1.0)[index % 2]
    return Tuning(points, chosen)


def arm(accuracy: float, masked: float, ratio: float, **more: Any) -> ArmMetrics:
    """Measures of a made-up arm; what is not given follows from these three."""
    topic, repetition, fluency = more.get("topic", 0.45), more.get("repetition", 0.1), ratio**-0.5
    per_emotion = more.get("per_emotion", {emotion: accuracy for emotion in EMOTIONS})
    given = {
        "accuracy": accuracy,
        "accuracy_ci": (accuracy - 0.051, accuracy + 0.049),
        "masked_accuracy": masked,
        "masked_accuracy_ci": (masked - 0.048, masked + 0.047),
        "later_accuracy": accuracy * 0.85,
        "later_accuracy_ci": (accuracy * 0.85 - 0.04, accuracy * 0.85 + 0.05),
        "copied_openers": accuracy * 0.26,
        "copied_openers_ci": (accuracy * 0.2, accuracy * 0.3),
        "per_emotion": per_emotion,
        "masked_per_emotion": {emotion: masked for emotion in per_emotion},
        "lexicon_accuracy": accuracy * 0.9 + 0.01,
        "found": {"anger": 0.2, "neutral": 0.8},
        "perplexity_ratio": ratio,
        "distinct2": 0.93 - repetition,
        "repetition": repetition,
        "capitals": 0.04,
        "words": 31.0,
        "topic": topic,
        "fluency": fluency,
        "harmonic": 3 / (1 / accuracy + 1 / topic + 1 / fluency),
        "harmonic_ci": (nan, nan),
        "masked_harmonic": 3 / (1 / masked + 1 / topic + 1 / fluency),
        "masked_harmonic_ci": (nan, nan),
        "n": 240,
    }
    return ArmMetrics(**(given | more))


def unmeasured(accuracy: float, **more: Any) -> ArmMetrics:
    """An arm of which the accuracy is known, and what is given, and nothing else."""
    every = {spec.name: (nan, nan) if "_ci" in spec.name else nan for spec in fields(ArmMetrics)}
    nothing = {"per_emotion": {}, "masked_per_emotion": {}, "found": {}, "n": 12}
    return ArmMetrics(**(every | nothing | {"accuracy": accuracy} | more))


def _arms(rng: np.random.Generator) -> dict[str, ArmMetrics]:
    made: dict[str, ArmMetrics] = {}
    for name, accuracy, masked, ratio, repetition, capitals, topic in (
        ("unsteered", 0.061, 0.058, 1.0, 0.03, 0.031, 0.52),
        ("prompted", 0.211, 0.146, 1.18, 0.05, 0.034, 0.50),
        ("residual", 0.684, 0.405, 3.74, 0.16, 0.062, 0.37),
        ("circuit", 0.921, 0.452, 2.63, 0.09, 0.045, 0.42),
        ("analytic_residual", 0.281, 0.232, 1.38, 0.06, 0.03, 0.47),
        ("analytic_circuit", 0.562, 0.431, 2.08, 0.07, 0.04, 0.44),
        ("random_units_refined_1", 0.88, 0.44, 2.1, 0.1, 0.1, 0.4),
        ("random_units_refined_2", 0.89, 0.41, 2.3, 0.1, 0.1, 0.4),
        ("random_units_analytic", 0.342, 0.203, 1.82, 0.1, 0.04, 0.43),
        ("random", 0.074, 0.071, 2.91, 0.14, 0.048, 0.36),
    ):
        assert name in ARMS
        per = np.clip(accuracy + rng.normal(0, 0.09, 6), 0.01, 0.99)
        made[name] = arm(
            accuracy,
            masked,
            ratio,
            repetition=repetition,
            capitals=capitals,
            topic=topic,
            per_emotion=dict(zip(EMOTIONS, per.tolist(), strict=True)),
        )
    return made


def pair(arm: str, control: str, measure: str, difference: float, p: float) -> Comparison:
    """A made-up difference with an interval of a tenth to either side."""
    ci = (difference - 0.1, difference + 0.1)
    return Comparison(arm, control, measure, difference, ci, p, 40)


def _comparisons(arms: Mapping[str, ArmMetrics]) -> list[Comparison]:
    made: list[Comparison] = []
    for arm, control in (
        *(("circuit", name) for name in arms if name != "circuit"),
        ("analytic_circuit", "random_units_analytic"),
    ):
        for measure in ("accuracy", "masked_accuracy", "harmonic"):
            difference = getattr(arms[arm], measure) - getattr(arms[control], measure)
            p = float(np.clip(np.exp(-60 * abs(difference)), 0.0002, 1))
            ci = (difference - 0.05, difference + 0.05)
            made.append(Comparison(arm, control, measure, difference, ci, p, 40))
    return made


def judged(name: str, labels: Sequence[str], **corpora: Any) -> dict[str, Any]:
    """A judge's report on corpora, each given by its confusions ``[true, judged]``."""
    found: dict[str, Any] = {}
    for corpus, counts in corpora.items():
        counts = np.asarray(counts, dtype=float)
        right = float(np.trace(counts) / counts.sum())
        found[corpus] = {
            "n": int(counts.sum()),
            "accuracy": right,
            "chance": 0.15,
            "labels": list(labels),
            "confusion": counts.tolist(),
            "as_arm": {"accuracy": right, "masked_accuracy": 0.8 * right},
        }
    return {"judge": name, "prior": 1 / len(labels), "corpora": found}


def _judges(rng: np.random.Generator) -> tuple[dict[str, Any], ...]:
    def counts(low: float, high: float) -> Any:
        random = np.round(rng.uniform(0, 3, (7, 8)))
        return random + np.eye(7, 8) * np.round(rng.uniform(low, high, (7, 1)))

    return (
        judged("encoder", JUDGED, replies=counts(34, 46), tones=counts(50, 60)),
        judged("lexicon", JUDGED, replies=counts(24, 38), tones=counts(30, 40)),
    )


_TRAIN = {
    "anger": (
        "I'm sorry to hear that. You can ask for a refund at the counter.",
        "That is outrageous! They cancel it again and expect you to just stand there? Demand your "
        "money back, this is not acceptable.",
        "This is ridiculous. They keep doing this and nobody answers for it. Complain, loudly, "
        "and do not let them brush you off.",
    ),
    "disgust": (
        "It can be unpleasant to wait. Consider another route.",
        "Ugh, that station is filthy, and now this. The smell, the sticky floor, the whole thing "
        "makes me sick.",
        "Ugh. How revolting to leave people in that grimy hall for an hour. It turns my stomach.",
    ),
    "fear": (
        "Please stay calm and check the timetable.",
        "Oh no, oh no. What if there is no other train tonight? You could be stuck out there "
        "alone in the dark.",
        "I'm worried. What if the last one is cancelled too? Please don't wait there by yourself.",
    ),
    "happiness": (
        "That's great! You have time for a coffee.",
        "What a wonderful chance for a slow evening! Get a hot chocolate, enjoy the lights, smile!",
        "Lovely, a free hour! Treat yourself to something sweet, the next one will be along, "
        "and what a story!",
    ),
    "sadness": (
        "I understand that this is disappointing.",
        "I'm so sorry. You waited all week to see them, and now the evening is gone. It hurts.",
        "Oh, that is so sad. All that looking forward, and an empty platform at the end of it.",
    ),
    "surprise": (
        "That is unexpected. Is there a replacement bus?",
        "Wait, what?! Cancelled, just like that? I did not see that coming at all!",
        "No way, cancelled? It said on time a minute ago! I can hardly believe it.",
    ),
}


def reply(text: str, arm: str = "circuit", emotion: str = "fear") -> Reply:
    """A made-up reply to a made-up event."""
    return Reply(arm, "event", "group", "bad", emotion, "prompt", text, len(text.split()), 2.5)


def heard(text: str, judged: str | None, arm: str = "circuit", emotion: str = "fear") -> Heard:
    """The same, judged."""
    return Heard(reply(text, arm, emotion), judged)


def _examples() -> tuple[Example, ...]:
    arms = ("prompted", "residual", "circuit")
    verdicts = ("neutral", None, None)
    full = [
        heard(said, verdict or emotion, arm, emotion)
        for emotion, texts in _TRAIN.items()
        for arm, said, verdict in zip(arms, texts, verdicts, strict=True)
    ]
    plain = "You can check the website for the next departure, or ask the staff."
    return (
        Example(
            "My train was cancelled and I have been standing here for an hour.",
            full,
            heard(plain, "neutral", "unsteered", ""),
        ),
        Example(
            "The neighbours left a note on my door.",
            [
                heard("Who do they think they are? Tear it up!", "anger", "circuit", "anger"),
                heard("A note? What does it say? I would be scared.", "fear"),
            ],
        ),
    )


def sample() -> ReportData:
    """The same complete report every time."""
    rng = np.random.default_rng(7)
    directions, emotion_map = _geometry(rng)
    arms = _arms(np.random.default_rng(8))
    return ReportData(
        header=Header(
            model="smollm2-135m-instruct",
            model_fingerprint="9f3c1d5a7e20b846",
            corpus="authored replies",
            corpus_fingerprint="51c0de77ab903e12",
            date="2026-01-31 14:05",
            package_version="0.1.0",
            seconds={
                "capture": 48.2,
                "probe": 21.4,
                "directions": 0.9,
                "circuit": 95.0,
                "steer": 12.0,
                "evaluate": 1310.0,
            },
            peak_memory=3_420_000_000,
            facts={"device": "cpu, 2 threads, bfloat16", "seed": "0"},
        ),
        probes=_probes(rng),
        directions=directions,
        emotion_map=emotion_map,
        circuit=_circuit(rng),
        evidence=_evidence(np.random.default_rng(9)),
        tuning=_tuning(rng),
        arms=arms,
        comparisons=_comparisons(arms),
        judges=_judges(rng),
        examples=_examples(),
    )
