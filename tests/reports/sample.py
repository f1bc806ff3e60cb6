"""A made-up run with plausible curves: 30 layers, 9 heads, six emotions.

No number in here was measured.
"""

from __future__ import annotations

import numpy as np

from affectlens.core import EMOTIONS, TONES
from affectlens.reports import (
    Arm,
    CircuitData,
    Comparison,
    CrossCorpus,
    Directions,
    EmotionMap,
    Evaluation,
    Example,
    Header,
    Judge,
    Probes,
    Reply,
    ReportData,
    Share,
    StrengthPoint,
    Tuning,
)

LAYERS = tuple(range(30))
HEADS, RANKS = 9, 24


def _probes(rng: np.random.Generator) -> Probes:
    depth = np.array(LAYERS) / 29
    accuracy = 0.78 + 0.15 * np.exp(-(((depth - 0.52) / 0.33) ** 2)) + rng.normal(0, 0.004, 30)
    return Probes(
        layers=LAYERS,
        accuracy=accuracy,
        low=accuracy - 0.035,
        high=accuracy + 0.03,
        chance=1 / 7,
        best=int(accuracy.argmax()),
        control=0.15 + rng.normal(0, 0.01, 30),
        baselines={"bag of words": 0.61, "the model asked in words": 0.24},
    )


def _geometry(rng: np.random.Generator) -> tuple[Directions, EmotionMap]:
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
        Directions(EMOTIONS, unit @ unit.T, 15, LAYERS, halves),
        EmotionMap(EMOTIONS, vectors @ axes[:2].T, (singular**2 / (singular**2).sum())[:2]),
    )


def _circuit(rng: np.random.Generator) -> CircuitData:
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
    return CircuitData(
        EMOTIONS,
        LAYERS,
        heads=heads,
        neurons=neurons,
        influence=influence,
        counts=counts,
        overlap=overlap_chance * kinship,
        overlap_chance=overlap_chance,
    )


def _tuning(rng: np.random.Generator) -> Tuning:
    points: list[StrengthPoint] = []
    chosen: dict[str, dict[str, float]] = {}
    for arm, top, cost in (("residual", 0.78, 1.0), ("circuit", 0.74, 0.7)):
        chosen[arm] = {}
        for index, emotion in enumerate(EMOTIONS):
            ceiling = top - 0.07 * (index % 3)
            for strength in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5):
                rise = 1 / (1 + np.exp(-6 * (strength - 0.62 - 0.05 * index)))
                points.append(
                    StrengthPoint(
                        arm,
                        emotion,
                        strength,
                        float(np.clip(0.12 + ceiling * rise + rng.normal(0, 0.015), 0, 1)),
                        float(np.exp(cost * strength**1.6 * (1 + 0.12 * (index % 4)))),
                    )
                )
            chosen[arm][emotion] = (0.75, 1.0)[index % 2]
    return Tuning(points, chosen)


def _evaluation(rng: np.random.Generator) -> Evaluation:
    arms = []
    for name, title, accuracy, masked, ratio, repetition, capitals, topic in (
        ("unsteered", "", 0.061, 0.058, 1.0, 0.03, 0.031, 0.52),
        ("prompted", "", 0.211, 0.146, 1.18, 0.05, 0.034, 0.50),
        ("residual", "", 0.684, 0.405, 3.74, 0.16, 0.062, 0.37),
        ("circuit", "", 0.921, 0.452, 2.63, 0.09, 0.045, 0.42),
        ("analytic_residual", "residual, not refined", 0.281, 0.232, 1.38, 0.06, 0.03, 0.47),
        ("analytic_circuit", "circuit, not refined", 0.562, 0.431, 2.08, 0.07, 0.04, 0.44),
        ("random_units_refined_1", "random units refined alike, 1", 0.88, 0.44, 2.1, 0.1, 0.1, 0.4),
        ("random_units_refined_2", "random units refined alike, 2", 0.89, 0.41, 2.3, 0.1, 0.1, 0.4),
        ("random_units_analytic", "random units, not refined", 0.342, 0.203, 1.82, 0.1, 0.04, 0.43),
        ("random", "random direction, equal norm", 0.074, 0.071, 2.91, 0.14, 0.048, 0.36),
    ):  # fmt: skip
        fluency = 1 / ratio**0.5
        per = np.clip(accuracy + rng.normal(0, 0.09, 6), 0.01, 0.99)
        arms.append(
            Arm(
                name,
                accuracy,
                accuracy - 0.051,
                accuracy + 0.049,
                title=title,
                masked=Share(masked, masked - 0.048, masked + 0.047),
                later=Share(accuracy * 0.85, accuracy * 0.85 - 0.04, accuracy * 0.85 + 0.05),
                copied=Share(accuracy * 0.26, accuracy * 0.2, accuracy * 0.3),
                perplexity_ratio=ratio,
                distinct_2=0.93 - repetition,
                repetition=repetition,
                capitals=capitals,
                topic=topic,
                harmonic=3 / (1 / accuracy + 1 / topic + 1 / fluency),
                masked_harmonic=3 / (1 / masked + 1 / topic + 1 / fluency),
                per_emotion=dict(zip(EMOTIONS, per.tolist(), strict=True)),
                other_judges={"lexicon": accuracy * 0.9 + 0.01},
                n=240,
            )
        )
    by_name = {arm.name: arm for arm in arms}
    comparisons: list[Comparison] = []
    for arm, control in (
        *(("circuit", name) for name in by_name if name != "circuit"),
        ("analytic_circuit", "random_units_analytic"),
    ):
        a, b = by_name[arm], by_name[control]
        for measure, difference in (
            ("accuracy", a.accuracy - b.accuracy),
            ("masked_accuracy", a.masked.value - b.masked.value),
            ("harmonic", a.harmonic - b.harmonic),
        ):
            p = float(np.clip(np.exp(-60 * abs(difference)), 0.0002, 1))
            comparisons.append(
                Comparison(
                    arm, control, measure, difference, difference - 0.05, difference + 0.05, p
                )
            )
    confusion = np.round(rng.uniform(0, 3, (7, 7)) + np.diag(rng.uniform(34, 46, 7)))
    linear = np.round(rng.uniform(0, 5, (7, 7)) + np.diag(rng.uniform(24, 38, 7)))
    return Evaluation(
        EMOTIONS,
        arms,
        false_hits=by_name["unsteered"].accuracy,
        comparisons=comparisons,
        judges=(
            Judge(
                "fine-tuned encoder",
                TONES,
                confusion,
                (
                    CrossCorpus("replies + tones", "replies", 0.89, 308),
                    CrossCorpus("replies", "tones", 0.71, 420),
                    CrossCorpus("tones", "replies", 0.74, 308),
                ),
            ),
            Judge("linear", TONES, linear, (CrossCorpus("tones", "replies", 0.64, 308),)),
        ),
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


def _examples() -> tuple[Example, ...]:
    arms = ("prompted", "residual", "circuit")
    heard = ("neutral", None, None)
    full = {
        emotion: {
            arm: Reply(said, verdict or emotion)
            for arm, said, verdict in zip(arms, texts, heard, strict=True)
        }
        for emotion, texts in _TRAIN.items()
    }
    return (
        Example(
            "My train was cancelled and I have been standing here for an hour.",
            full,
            Reply("You can check the website for the next departure, or ask the staff.", "neutral"),
        ),
        Example(
            "The neighbours left a note on my door.",
            {
                "anger": {"circuit": Reply("Who do they think they are? Tear it up!", "anger")},
                "fear": {"circuit": Reply("A note? What does it say? I would be scared.", "fear")},
            },
        ),
    )


def sample() -> ReportData:
    """The same complete report every time."""
    rng = np.random.default_rng(7)
    directions, emotion_map = _geometry(rng)
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
        tuning=_tuning(rng),
        evaluation=_evaluation(rng),
        examples=_examples(),
    )
