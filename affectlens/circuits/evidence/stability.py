"""Stability: would other texts have given the same units, and what do those all agree on cost?

Scores that are means over texts are made once for each of several folds; halves and bootstrap
samples of the folds then rank the units anew, each sublayer giving as many as the circuit has
there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.evidence.files import Measured
from affectlens.circuits.overlap import overlap
from affectlens.circuits.units import KINDS, choose, there_only
from affectlens.circuits.verdict import Finding
from affectlens.core.artefact import Provenance, fingerprint
from affectlens.core.errors import DataError
from affectlens.core.progress import progress

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit
    from affectlens.datasets.schema import Corpus
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel

STABLE = 0.5
"""Halves of the texts, and texts and their paraphrases, must agree on so much (Jaccard)."""
CORE = 0.9
"""Units of the core are in so many of the bootstrap selections."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
Scores = Mapping[str, Float[Tensor, "fold emotion layer unit"]]


@dataclass(frozen=True)
class StabilitySettings:
    """How often units are chosen anew.

    Attributes:
        kind: ``"neurons"`` or ``"heads"``.
        folds: Of the scenarios.
        splits: Into halves.
        draws: Of bootstrap samples.
        seed: Of both.
    """

    kind: str = "neurons"
    folds: int = 6
    splits: int = 20
    draws: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.folds < 4 or min(self.splits, self.draws) < 1:
            raise DataError(
                "Stability is of neurons or heads, and needs four folds or more, and at least one "
                "split and one draw."
            )


@dataclass(frozen=True, eq=False, repr=False)
class Stability(Measured):
    """How far selections agree.

    Attributes:
        emotions: The first axis of all.
        halves: Jaccard of the selections on two halves of the texts, by split.
        chance: The same expected of random selections of the same shape.
        paraphrased: Jaccard of the selections on texts and on the same contents in other words;
            NaN if there are no paraphrases.
        frequency: In which share of bootstrap selections each of the circuit's units is, the
            highest score first; filled up with NaN.
        provenance: What made it.
    """

    emotions: tuple[str, ...]
    halves: Float[Floats, "emotion split"]
    chance: Float[Floats, " emotion"]
    paraphrased: Float[Floats, " emotion"]
    frequency: Float[Floats, "emotion unit"]
    provenance: Provenance
    kind: ClassVar[str] = "stability"
    arrays: ClassVar[tuple[str, ...]] = ("halves", "chance", "paraphrased", "frequency")
    facts: ClassVar[Mapping[str, Callable[[Any], Any]]] = {"emotions": tuple}

    def core(self, circuit: Circuit, emotion: str) -> list[tuple[int, int]]:
        """Layer and index of the units that `CORE` of the selections agree on."""
        ranked = circuit.ranked(emotion, str(self.provenance.parameters["kind"]))
        often = self.frequency[self.emotions.index(emotion), : len(ranked)]
        return [(u.layer, u.index) for u, x in zip(ranked, often, strict=True) if x >= CORE]

    def core_share(self) -> Float[Floats, " emotion"]:
        """Share of each emotion's units in its core."""
        counted = ~np.isnan(self.frequency)
        agreed = np.nan_to_num(self.frequency) >= CORE
        return (agreed & counted).sum(1) / counted.sum(1).clip(1)

    def findings(self) -> dict[str, dict[str, Finding]]:
        """Of each emotion: stable."""
        asked = self.provenance.parameters
        found = dict[str, dict[str, Finding]]()
        for e, emotion in enumerate(self.emotions):
            halves, other = float(self.halves[e].mean()), float(self.paraphrased[e])
            seen, chance = float(np.nanmin([halves, other])), float(self.chance[e])
            told = "" if np.isnan(other) else f", and on paraphrases ({halves:.3f}, {other:.3f})"
            found[emotion] = {
                "stable": Finding(
                    "passed" if seen >= STABLE and seen > chance else "failed",
                    f"overlap (Jaccard) of the {asked['kind']} chosen on halves of the texts"
                    f"{told}; beside it, by chance",
                    seen,
                    chance,
                    task=str(asked["ranking"]),
                    units=int((~np.isnan(self.frequency[e])).sum()),
                    texts=int(asked["texts"]),
                    draws=self.halves.shape[1],
                )
            }
        return found

    def brief(self) -> dict[str, object]:
        """Kind, mean overlap of halves, mean share of the core, model."""
        return {
            "kind": self.provenance.parameters["kind"],
            "halves": f"{self.halves.mean():.2f} (chance {self.chance.mean():.2f})",
            "core": f"{self.core_share().mean():.0%}",
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row for every emotion."""
        return [
            {
                "emotion": emotion,
                "halves": float(self.halves[e].mean()),
                "chance": float(self.chance[e]),
                **({} if np.isnan(self.paraphrased[e]) else {"paraphrased": self.paraphrased[e]}),
                "core": float(self.core_share()[e]),
            }
            for e, emotion in enumerate(self.emotions)
        ]


def fold_scores(
    model: LanguageModel,
    corpus: Corpus,
    directions: Directions,
    *,
    folds: int = 6,
    position: str | None = None,
    score: str = "contrast",
) -> dict[str, Float[Tensor, "fold emotion layer unit"]]:
    """Direct contributions on each fold of the scenarios, the directions being the same.

    Args:
        model: The model.
        corpus: The texts that the circuit was found on, or others of their kind.
        directions: It was found with.
        folds: How many.
        position, score: As of `affectlens.circuits.contributions`.

    Raises:
        DataError: If there are fewer scenarios than folds, or a fold lacks an emotion.
    """
    from affectlens.circuits.attribution.contributions import contributions

    names = sorted(corpus.scenarios())
    if len(names) < folds:
        raise DataError(f"{len(names)} scenarios do not make {folds} folds; ask for fewer.")
    found: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    with progress("scoring folds", folds) as advance:
        for fold in range(folds):
            kept = set(names[fold::folds])
            records = tuple(r for r in corpus.records if r.scenario in kept)
            part = replace(corpus, records=records)
            one = contributions(model, part, directions, position=position, score=score)
            found["heads"].append(one.heads)
            found["neurons"].append(one.neurons)
            advance(1)
    return {kind: torch.stack(values) for kind, values in found.items()}


def stability(
    circuit: Circuit,
    scores: Scores,
    settings: StabilitySettings = StabilitySettings(),
    *,
    paraphrased: Scores | None = None,
    texts: int = 0,
    ranking: str = "direct contributions",
) -> Stability:
    """Choose the units anew on halves and on bootstrap samples of the folds.

    Args:
        circuit: Whose units, and how many each sublayer gives.
        scores: By kind of unit, on each fold (`fold_scores`), in the circuit's emotions.
        settings: How often.
        paraphrased: Scores on paraphrases of the texts, which the circuit was ranked by likewise.
        texts: How many texts the scores are of, for the record.
        ranking: What the scores are, likewise.

    Raises:
        DataError: If the scores are of another shape, or of fewer than four folds.
    """
    kind = settings.kind
    values = scores[kind]
    known = circuit.head_scores if kind == "heads" else circuit.neuron_scores
    if values.shape[1:] != known.shape or len(values) < 4:
        raise DataError(
            f"The scores are {list(values.shape)}; four folds or more of {list(known.shape)} are "
            "needed."
        )
    rng = np.random.default_rng(settings.seed)
    n, sizes = len(values), circuit.sizes[:, KINDS.index(kind)].tolist()
    halves, chances = list[list[float]](), list[list[float]]()
    for _ in range(settings.splits):
        order = rng.permutation(n)
        pair = [_chosen(circuit, values[p], kind) for p in (order[: n // 2], order[n // 2 :])]
        both = [
            overlap({"one": pair[0][e], "other": pair[1][e]}, sizes=sizes) for e in circuit.emotions
        ]
        halves.append([float(one.jaccard[0, 1]) for one in both])
        chances.append([float(one.expected[0, 1]) for one in both])
    units = [[(u.layer, u.index) for u in circuit.ranked(e, kind)] for e in circuit.emotions]
    often = np.full((len(units), max(map(len, units), default=0)), np.nan)
    for e, own in enumerate(units):
        often[e, : len(own)] = 0.0
    for _ in range(settings.draws):
        drawn = _chosen(circuit, values[rng.integers(0, n, n)], kind)
        for e, emotion in enumerate(circuit.emotions):
            again = set(drawn[emotion])
            often[e, : len(units[e])] += [unit in again for unit in units[e]]
    words = np.full(len(units), np.nan)
    content = [values.float().numpy().tobytes()]
    if paraphrased is not None:
        pair = [_chosen(circuit, of, kind) for of in (values, paraphrased[kind])]
        for e, emotion in enumerate(circuit.emotions):
            both = overlap({"one": pair[0][emotion], "other": pair[1][emotion]}, sizes=sizes)
            words[e] = float(both.jaccard[0, 1])
        content.append(paraphrased[kind].float().numpy().tobytes())
    return Stability(
        circuit.emotions,
        np.array(halves).T,
        np.array(chances).mean(0),
        words,
        often / settings.draws,
        Provenance(
            "stability",
            model=circuit.provenance.model,
            model_name=circuit.provenance.model_name,
            parameters=asdict(settings)
            | {"scores": fingerprint(*content), "texts": texts, "ranking": ranking},
            inputs={"units": circuit.units_fingerprint},
        ),
    )


def _chosen(
    circuit: Circuit, scores: Float[Tensor, "fold emotion layer unit"], kind: str
) -> dict[str, list[tuple[int, int]]]:
    column = KINDS.index(kind)
    ranking = there_only(scores.mean(0), circuit.sizes[:, column])
    found = choose(ranking, circuit.allocation[..., column], circuit.emotions)
    return {e: [(u.layer, u.index) for u in units] for e, units in found.items()}
