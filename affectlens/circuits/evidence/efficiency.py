"""Unit efficiency: what a circuit's choice of units is worth when there are few of them.

With many units the choice hardly matters once the values are refined. So the same number of units
is chosen in several ways, all are refined alike, and what is heard in the replies is compared over
the number of units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from affectlens.circuits.evidence.budgets import RANDOM
from affectlens.core.artefact import Provenance, read_tensors, write_tensors
from affectlens.core.display import Displayed
from affectlens.core.errors import ArtefactError, DataError, unknown
from affectlens.core.statistics import (
    Difference,
    against_draws,
    bootstrap_interval,
    holm,
    paired_difference,
)

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

MEASURES: tuple[str, ...] = ("accuracy", "masked_accuracy")
ALL = "all"
"""In place of an emotion: every row."""


@dataclass(frozen=True)
class Area:
    """What lies between an arm's curve and another's.

    Attributes:
        arm, control: Names of the arms; ``"random"`` is the mean over its draws.
        measure: One of :data:`MEASURES`.
        emotion: The target, or ``"all"``.
        value, beside: Mean height of either curve over the logarithm of the number of units.
        difference: Between them, paired by reply, interval over scenarios.
        p: Of it, no lower than so few scenarios allow, nor, beside random draws, than these
            differ among themselves allows (1 with a single draw); in a table of all emotions by
            Holm over them.
    """

    arm: str
    control: str
    measure: str
    emotion: str
    value: float
    beside: float
    difference: Difference
    p: float


@dataclass(frozen=True, eq=False, repr=False)
class EfficiencyCurve(Displayed):
    """What was heard in replies, by arm and number of units.

    Attributes:
        arms: First axis: ``"circuit"``, other choices, and draws ``"random_1"``, ….
        counts: Second axis: units per emotion, rising.
        events: Of each row: what was answered.
        scenarios: Of each row: what is drawn as a whole when intervals are made.
        targets: Of each row: the emotion asked for.
        accuracy: 1 where the judge hears the target.
        masked_accuracy: The same with feeling words taken out.
        perplexity: Of an arm's replies to a target, relative to unsteered ones; last axis: the
            emotions in the order of `emotions`, then all together. Infinite if all are empty.
        strengths: At which each arm steered; last axis: the emotions.
        provenance: What made it.
    """

    arms: tuple[str, ...]
    counts: tuple[int, ...]
    events: tuple[str, ...]
    scenarios: tuple[str, ...]
    targets: tuple[str, ...]
    accuracy: Float[Floats, "arm count row"]
    masked_accuracy: Float[Floats, "arm count row"]
    perplexity: Float[Floats, "arm count target"]
    strengths: Float[Floats, "arm count emotion"]
    provenance: Provenance

    @property
    def emotions(self) -> tuple[str, ...]:
        """The targets, each once."""
        return tuple(dict.fromkeys(self.targets))

    @property
    def draws(self) -> tuple[int, ...]:
        """Places of the random draws among the arms."""
        return tuple(i for i, arm in enumerate(self.arms) if arm.startswith(f"{RANDOM}_"))

    def heights(self, arm: str, measure: str = "masked_accuracy") -> Float[Floats, "count row"]:
        """What each row of an arm scores; ``"random"`` is the mean over its draws.

        Raises:
            UnknownNameError: If there is no such arm or measure.
        """
        if measure not in MEASURES:
            raise unknown("measure", measure, MEASURES)
        values: Floats = getattr(self, measure)
        if arm == RANDOM and self.draws:
            return values[list(self.draws)].mean(axis=0)
        if arm not in self.arms:
            raise unknown("arm", arm, [*self.arms, RANDOM])
        return values[self.arms.index(arm)]

    def area(
        self, arm: str, control: str = RANDOM, measure: str = "masked_accuracy", emotion: str = ALL
    ) -> Area:
        """The area between two curves over ``log2`` of the number of units, per unit of its width.

        By trapezia, so it is a weighted mean of the differences at each count: 0 where the arms do
        alike, .2 where one is 20 points higher throughout. With one count it is the difference.

        Raises:
            UnknownNameError: If there is no such arm, measure or emotion.
        """
        rows = self._rows(emotion)
        weights = trapezia(self.counts)
        own, other = (weights @ self.heights(a, measure)[:, rows] for a in (arm, control))
        scenarios = [s for s, keep in zip(self.scenarios, rows, strict=True) if keep]
        if control == RANDOM and self.draws:
            values: Floats = getattr(self, measure)[list(self.draws)][..., rows]
            drawn = np.einsum("c,dcr->dr", weights, values)
            difference = against_draws(own, drawn, scenarios)
        else:
            difference = paired_difference(own, other, scenarios)
        heights = float(own.mean()), float(other.mean())
        return Area(arm, control, measure, emotion, *heights, difference, difference.p)

    def areas(self, control: str = RANDOM) -> list[Area]:
        """Of every arm against a control, each measure, all rows and each emotion."""
        others = [a for i, a in enumerate(self.arms) if i not in self.draws and a != control]
        found = list[Area]()
        for arm in others:
            for measure in MEASURES:
                each = [self.area(arm, control, measure, emotion) for emotion in self.emotions]
                p = holm([one.p for one in each])
                found.append(self.area(arm, control, measure))
                found += [replace(one, p=float(x)) for one, x in zip(each, p, strict=True)]
        return found

    def enough(self, arm: str, measure: str = "masked_accuracy") -> int:
        """The smallest number of units that loses nothing against the arm's best.

        That is: the 95 % interval of the paired difference to it reaches zero.
        """
        heights = self.heights(arm, measure)
        best = heights[int(heights.mean(axis=1).argmax())]
        for count, own in zip(self.counts, heights, strict=True):
            lost = paired_difference(best, own, self.scenarios)
            if not lost.low > 0:
                return count
        raise AssertionError("the best loses nothing against itself")

    def brief(self) -> dict[str, object]:
        """Arms, counts, replies, scenarios, model."""
        return {
            "arms": ", ".join(self.arms),
            "units": f"{self.counts[0]}-{self.counts[-1]}",
            "replies": len(self.targets),
            "scenarios": len(set(self.scenarios)),
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row for every arm, count and emotion, and for all emotions."""
        found = list[dict[str, object]]()
        for a, arm in enumerate(self.arms):
            for k, count in enumerate(self.counts):
                for e, emotion in enumerate((*self.emotions, ALL)):
                    rows = self._rows(emotion)
                    row: dict[str, object] = {"arm": arm, "units": count, "emotion": emotion}
                    for measure in MEASURES:
                        values: Floats = getattr(self, measure)[a, k, rows]
                        own = [s for s, keep in zip(self.scenarios, rows, strict=True) if keep]
                        low, high = bootstrap_interval(values, own).tolist()
                        row |= {
                            measure: float(values.mean()),
                            f"{measure}_low": low,
                            f"{measure}_high": high,
                        }
                    strengths = self.strengths[a, k]
                    row["perplexity_ratio"] = float(self.perplexity[a, k, e])
                    row["strength"] = float(strengths.mean() if emotion == ALL else strengths[e])
                    found.append(row)
        return found

    def save(self, path: str | Path) -> None:
        """Write it to one file (safetensors with a JSON header).

        Raises:
            ArtefactError: If the file cannot be written.
        """
        tensors = {name: torch.from_numpy(getattr(self, name)) for name in _TENSORS}
        facts = {name: list(getattr(self, name)) for name in _FACTS}
        # As text: tensors of artefacts hold no infinity.
        facts["perplexity"] = [str(x) for x in self.perplexity.ravel()]
        write_tensors(Path(path), tensors, self.provenance, facts)

    @classmethod
    def load(cls, path: str | Path) -> EfficiencyCurve:
        """Read what `save` wrote.

        Raises:
            ArtefactError: If the file is missing or damaged.
            MismatchError: If it is another kind of artefact.
        """
        file = read_tensors(Path(path), "efficiency")
        try:
            facts: dict[str, Any] = {name: tuple(file.extra[name]) for name in _FACTS}
            values: dict[str, Any] = {name: file.tensors[name].numpy() for name in _TENSORS}
            ratios = np.array([float(x) for x in file.extra["perplexity"]])
            shape = (len(facts["arms"]), len(facts["counts"]), -1)
            return cls(
                **facts,
                **values,
                perplexity=ratios.reshape(shape),
                provenance=file.provenance,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} is damaged ({error}); measure it again.") from error

    def _rows(self, emotion: str) -> Bool[Bools, " row"]:
        if emotion == ALL:
            return np.ones(len(self.targets), dtype=bool)
        if emotion not in self.emotions:
            raise unknown("emotion", emotion, [ALL, *self.emotions])
        return np.array([target == emotion for target in self.targets])


def trapezia(counts: Sequence[int]) -> Float[Floats, " count"]:
    """Weights of heights at rising counts in the mean height over the logarithm of the count.

    Raises:
        DataError: If the counts do not rise from 1 on.
    """
    if not counts or counts[0] < 1 or list(counts) != sorted(set(counts)):
        raise DataError(f"Counts of units must rise from 1 on, not {list(counts)}.")
    if len(counts) == 1:
        return np.ones(1)
    steps = np.diff(np.log2(np.array(counts, dtype=np.float64)))
    weights = np.zeros(len(counts))
    weights[:-1] += steps / 2
    weights[1:] += steps / 2
    return weights / steps.sum()


_TENSORS = ("accuracy", "masked_accuracy", "strengths")
_FACTS = ("arms", "counts", "events", "scenarios", "targets")
