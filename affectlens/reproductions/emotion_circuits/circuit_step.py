"""Step ``circuit``: scores of neurons and heads, emotion differences, and the circuit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.circuits import Circuit, contributions, difference, find_circuit, unit_means
from affectlens.circuits.attribution.after_norm import heads_after_norm
from affectlens.circuits.attribution.contributions import Contributions, score_units
from affectlens.circuits.attribution.sublayer_directions import sublayer_directions
from affectlens.circuits.units import unit_sizes
from affectlens.core import EMOTIONS
from affectlens.datasets.schema import Corpus
from affectlens.geometry import Directions
from affectlens.reproductions.comparison import Finding, save_findings
from affectlens.reproductions.emotion_circuits import RAW_HEADS, VALENCE_KEY
from affectlens.reproductions.emotion_circuits.directions_step import DIRECTIONS, complete_groups
from affectlens.reproductions.emotion_circuits.elicit_step import ELICITED, accepted
from affectlens.reproductions.emotion_circuits.influence_step import INFLUENCE, load_profile
from affectlens.reproductions.emotion_circuits.replies import load_said
from affectlens.reproductions.emotion_circuits.scenarios import (
    FILE,
    elicited,
    load_events,
    overwritten,
)
from affectlens.reproductions.emotion_circuits.settings import PaperSettings
from affectlens.reproductions.emotion_circuits.units import (
    Curves,
    curves,
    half_mass,
    negative_share,
    top_overlap,
)

if TYPE_CHECKING:
    from affectlens.models import LanguageModel
    from affectlens.reproductions.study import StudyRun

CIRCUIT = "circuit.safetensors"
FINDINGS = "circuit.json"
_TOP = {"10": 10 / 672, "50": 50 / 672, "168": 168 / 672}
"""Shares of the paper's heads whose overlap is given."""


@dataclass(frozen=True)
class Scored:
    """Units scored on accepted prompts, and what they add elsewhere.

    Attributes:
        scores: On the accepted fitting prompts; ranks units.
        tested: What units add on test prompts.
        gains: What the emotion differences add at each unit.
        delta: The differences themselves, by kind.
    """

    scores: Contributions
    tested: Contributions
    gains: Mapping[str, Float[Tensor, "emotion layer unit"]]
    delta: Mapping[str, Float[Tensor, "emotion layer width"]]


def work(run: StudyRun) -> list[str]:
    """Score units, share out the budget by influence, and take the highest of each sublayer."""
    settings: PaperSettings = run.settings
    model = run.model
    directions = Directions.load(run.input("directions", DIRECTIONS))
    corpus = accepted_corpus(run)
    scored = _scored(run, corpus, directions)
    circuit = find_circuit(
        model,
        corpus,
        directions,
        scored=scored.scores,
        profile=load_profile(run.input("influence", INFLUENCE)),
        budget=settings.budget,
        split=None,
    ).with_delta(scored.delta["neurons"], scored.delta["heads"], how="published")
    circuit.save(run.folder / CIRCUIT)
    sizes = unit_sizes(model.anatomy)
    findings = [
        *_spread(scored.scores, sizes),
        *_allocation(circuit),
        *_overlaps(circuit),
        *_local(scored, settings, run.option("seed")),
    ]
    save_findings(run.folder / FINDINGS, findings)
    return [CIRCUIT, FINDINGS]


def accepted_corpus(run: StudyRun) -> Corpus:
    """Every accepted fitting prompt, whether its group is complete or not."""
    replies = accepted(load_said(run.input("elicit", ELICITED)), run.option("accept"))
    events = {e.group: e for e in load_events(run.input("scenarios", FILE), "fit")}
    records = tuple(events[reply.group].record(reply.emotion) for reply in replies)
    return Corpus("emotion-circuits", "elicited", records)


def _scored(run: StudyRun, corpus: Corpus, directions: Directions) -> Scored:
    model: LanguageModel = run.model
    found = sublayer_directions(directions, model.anatomy)
    scores = contributions(model, corpus, directions, position="last", grouped=False)
    if not run.corrected(RAW_HEADS):
        scores = replace(scores, heads=heads_after_norm(model, corpus, directions))
    groups = complete_groups(run)
    means = unit_means(model, groups, EMOTIONS, position="last", grouped=True)
    of_neurons = means
    if not run.corrected(VALENCE_KEY):
        merged = overwritten(groups)
        of_neurons = unit_means(model, merged, EMOTIONS, position="last", grouped=True)
    tested = elicited(load_events(run.input("scenarios", FILE), "test"))
    return Scored(
        scores=scores,
        tested=contributions(model, tested, directions, position="last", grouped=False),
        gains={
            "neurons": score_units(model, of_neurons, found, score="contrast").neurons,
            "heads": score_units(model, means, found, score="contrast").heads,
        },
        delta={
            "neurons": difference(of_neurons.mean("neurons")),
            "heads": difference(means.mean("heads")),
        },
    )


def _spread(scores: Contributions, sizes: Int[Tensor, "layer 2"]) -> list[Finding]:
    findings: list[Finding] = []
    for kind, (name, each) in enumerate((("heads", scores.heads), ("neurons", scores.neurons))):
        there = sizes[:, kind]
        counts = half_mass(each, there)
        total = int(there.sum())
        findings.append(
            Finding(
                f"{name}.half_mass",
                100 * sum(counts) / len(counts) / total,
                note=f"{min(counts)} to {max(counts)} of {total}, per emotion",
            )
        )
        against = negative_share(each, there)
        findings.append(
            Finding(
                f"{name}.negative",
                100 * float(against.mean()),
                note=f"{100 * float(against.min()):.0f} to {100 * float(against.max()):.0f}",
            )
        )
    total = int(sizes[:, 0].sum())
    for label, share in _TOP.items():
        count = max(1, round(share * total))
        seen = top_overlap(scores.heads, sizes[:, 0], count, EMOTIONS).summary()
        findings.append(
            Finding(
                f"heads.jaccard.{label}",
                seen["jaccard"],
                control=seen["expected"],
                beside="chance with as many in each layer",
                note=f"top {count} of {total}",
            )
        )
    return findings


def _allocation(circuit: Circuit) -> list[Finding]:
    findings: list[Finding] = []
    anger = circuit.emotions.index("anger")
    half = circuit.n_layers // 2
    for kind, name in enumerate(("heads", "neurons")):
        counts = circuit.allocation[..., kind]
        total = int(counts[anger].sum())
        late = 100 * counts[:, half:].sum(1) / counts.sum(1)
        there = int(circuit.sizes[:, kind].sum())
        findings += [
            Finding(f"allocation.{name}", float(total), note=f"of {there}"),
            Finding(f"allocation.{name}.late", float(late.mean()), control=50.0, beside="uniform"),
            Finding(f"allocation.{name}.by_layer", [float(n) for n in counts[anger].tolist()]),
        ]
    return findings


def _overlaps(circuit: Circuit) -> list[Finding]:
    findings: list[Finding] = []
    for kind in ("neurons", "heads"):
        found = circuit.overlap(kind)
        seen = found.summary()
        upper = torch.triu_indices(len(found.emotions), len(found.emotions), 1).numpy()
        pairs: Any = found.jaccard[upper[0], upper[1]]
        findings.append(
            Finding(
                f"overlap.{kind}",
                seen["jaccard"],
                control=seen["expected"],
                beside="chance with the same allocation",
                note=f"standard deviation over pairs {float(pairs.std()):.3f}, "
                f"{seen['ratio']:.1f} times chance",
            )
        )
    return findings


def _local(scored: Scored, settings: PaperSettings, seed: int) -> list[Finding]:
    """Ablation and enhancement by projection, in the layer of the units."""
    findings: list[Finding] = []
    ranking = {"neurons": scored.scores.neurons, "heads": scored.scores.heads}
    added = {"neurons": scored.tested.neurons, "heads": scored.tested.heads}
    for way, values in (("ablation", added), ("enhancement", scored.gains)):
        for kind, ranks in ranking.items():
            found = curves(ranks, values[kind], settings.counts, draws=settings.draws, seed=seed)
            findings += _curve(f"{way}.{kind}", found)
    return findings


def _curve(name: str, found: Curves) -> list[Finding]:
    most = float(found.top.max().clamp_min(1e-12))
    sign = -1.0 if name.startswith("ablation") else 1.0
    findings = [
        Finding(
            f"{name}.k{count}",
            100 * found.share(count),
            control=100 * float(found.random[found.counts.index(count)]) / most,
            beside="random units of the layer",
        )
        for count in (2, 4)
        if count in found.counts
    ]
    if 2 in found.counts:
        at = found.counts.index(2)
        top, low = float(found.top[at]), abs(float(found.low[at]))
        findings.append(
            Finding(
                f"{name}.ratio",
                top / max(low, 1e-12),
                note="two highest to two from the middle of the ranking",
            )
        )
    said = [sign * float(value) for value in found.top]
    rand = [sign * float(value) for value in found.random]
    findings.append(
        Finding(
            f"{name}.curve",
            said,
            control=rand,
            beside="random units",
            note=f"k = {', '.join(map(str, found.counts))}",
        )
    )
    return findings
