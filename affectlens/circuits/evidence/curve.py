"""What an ablation found, and what may be said of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float

from affectlens.circuits.evidence.files import read_arrays, write_arrays
from affectlens.circuits.verdict import Finding
from affectlens.core.artefact import Provenance
from affectlens.core.display import Displayed
from affectlens.core.errors import ArtefactError
from affectlens.core.statistics import Difference, holm, paired_difference

NECESSARY_RATIO = 3.0
"""A circuit's units count as necessary if their loss costs so many times what random ones' does."""
ALPHA = 0.01

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Effect:
    """One emotion at one count of units.

    Attributes:
        emotion: Whose units were taken out.
        count: How many.
        drop: Mean fall of its own margin, nats per token.
        random: The same for random units, mean over draws.
        others: Mean fall of the other emotions' margins under the same ablation.
        share: Fall relative to the margin of the model as it is.
        wrong_way: Share of texts whose margin rose.
        above_draws: ``(1 + draws at least as high) / (1 + draws)``, one-sided.
        difference: Own fall minus random units', paired by text, over scenarios.
        specific: Own fall minus the other emotions', likewise.
        p: Of ``difference``, by Holm over the emotions at this count.
        p_specific: Of ``specific``, likewise.
    """

    emotion: str
    count: int
    drop: float
    random: float
    others: float
    share: float
    wrong_way: float
    above_draws: float
    difference: Difference
    specific: Difference
    p: float
    p_specific: float

    @property
    def necessary(self) -> bool:
        """Whether the fall is `NECESSARY_RATIO` times random units' at least, p below `ALPHA`."""
        enough = self.drop > 0 and self.drop >= NECESSARY_RATIO * self.random
        return enough and self.difference.mean > 0 and self.p < ALPHA

    @property
    def own(self) -> bool:
        """Whether the emotion's own margin falls more than the others', p below `ALPHA`."""
        return self.specific.mean > 0 and self.p_specific < ALPHA

    def findings(self) -> dict[str, Finding]:
        """What it says: necessary, specific."""
        what = f"fall of the margin without {self.count} units, nats per token"
        return {
            "necessary": Finding(
                _said(self.necessary),
                f"{what}; beside it, without random ones",
                self.drop,
                self.random,
                self.p,
                units=self.count,
            ),
            "specific": Finding(
                _said(self.own),
                f"{what}; beside it, of the other emotions' margins",
                self.drop,
                self.others,
                self.p_specific,
                units=self.count,
            ),
        }


@dataclass(frozen=True, eq=False, repr=False)
class AblationCurve(Displayed):
    """Falls of the carry-over margin as units are taken out.

    Attributes:
        emotions: Whose units: the first axis of ``drops`` and ``random_drops``.
        told: The task's emotions: columns of ``margins``, last axis of ``drops``.
        counts: How many units: the second axis.
        scenarios: Of each text.
        margins: Of the model as it is, nats per token; NaN where a text has no continuation.
        drops: Fall of every emotion's margin under each ablation.
        random_drops: Fall of the emotion's own margin under each draw of random units.
        provenance: What made it.
    """

    emotions: tuple[str, ...]
    told: tuple[str, ...]
    counts: tuple[int, ...]
    scenarios: tuple[str, ...]
    margins: Float[Floats, "text told"]
    drops: Float[Floats, "emotion count text told"]
    random_drops: Float[Floats, "emotion count draw text"]
    provenance: Provenance
    kind: ClassVar[str] = "ablation"

    def effects(self) -> list[Effect]:
        """Every emotion at every count, counts rising."""
        found = list[Effect]()
        for k in range(len(self.counts)):
            parts = [self._parts(e, k) for e in range(len(self.emotions))]
            p = holm([part["difference"].p for part in parts])
            p_specific = holm([part["specific"].p for part in parts])
            found += [
                Effect(p=float(p[e]), p_specific=float(p_specific[e]), **part)
                for e, part in enumerate(parts)
            ]
        return found

    def findings(self) -> dict[str, dict[str, Finding]]:
        """Of each emotion at the largest count: necessary, specific."""
        last = self.effects()[-len(self.emotions) :]
        facts: dict[str, Any] = {
            "task": str(self.provenance.parameters.get("task", "")),
            "texts": len(self.scenarios),
            "draws": self.random_drops.shape[2],
        }
        return {
            effect.emotion: {
                word: replace(found, **facts) for word, found in effect.findings().items()
            }
            for effect in last
        }

    def _parts(self, e: int, k: int) -> dict[str, Any]:
        own = self.told.index(self.emotions[e])
        draws = self.random_drops[e, k]
        kept = ~np.isnan(self.drops[e, k, :, own]) & ~np.isnan(draws).all(axis=0)
        scenarios = [s for s, keep in zip(self.scenarios, kept, strict=True) if keep]
        drop, draws = self.drops[e, k, kept, own], draws[:, kept]
        others = np.delete(self.drops[e, k, kept], own, axis=1)
        told = ~np.isnan(others).all(axis=1)
        other = np.nanmean(others[told], axis=1)
        beside = [s for s, keep in zip(scenarios, told, strict=True) if keep]
        run = draws[~np.isnan(draws).all(axis=1)]
        above = int((np.nanmean(run - drop, axis=1) >= 0).sum())
        random = np.nanmean(draws, axis=0)
        return {
            "emotion": self.emotions[e],
            "count": self.counts[k],
            "drop": float(drop.mean()),
            "random": float(random.mean()),
            "others": float(other.mean()),
            "share": float(drop.mean() / self.margins[kept, own].mean()),
            "wrong_way": float((drop < 0).mean()),
            "above_draws": (1 + above) / (1 + len(run)),
            "difference": paired_difference(drop, random, scenarios),
            "specific": paired_difference(drop[told], other, beside),
        }

    def brief(self) -> dict[str, object]:
        """Emotions, counts, texts, draws, what was taken out and by what, model."""
        asked = self.provenance.parameters
        return {
            "emotions": len(self.emotions),
            "counts": f"{self.counts[0]}-{self.counts[-1]} {asked['kind']}",
            "by": asked["by"],
            "texts": len(self.scenarios),
            "draws": self.random_drops.shape[2],
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row for every emotion and count."""
        return [
            {
                "emotion": one.emotion,
                "units": one.count,
                "drop": one.drop,
                "random": one.random,
                "low": one.difference.low,
                "high": one.difference.high,
                "p": one.p,
                "others": one.others,
                "p_specific": one.p_specific,
                "share": one.share,
                "wrong_way": one.wrong_way,
            }
            for one in self.effects()
        ]

    def save(self, path: str | Path) -> None:
        """Write it to one file (safetensors with a JSON header).

        Raises:
            ArtefactError: If the file cannot be written.
        """
        facts = {name: list(getattr(self, name)) for name in _FACTS}
        write_arrays(path, {name: getattr(self, name) for name in _ARRAYS}, facts, self.provenance)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtefactError: If the file is missing or damaged.
            MismatchError: If it is another kind of artefact.
        """
        arrays, facts, provenance = read_arrays(path, cls.kind, _ARRAYS)
        try:
            return cls(
                emotions=tuple(facts["emotions"]),
                told=tuple(facts["told"]),
                counts=tuple(int(n) for n in facts["counts"]),
                scenarios=tuple(facts["scenarios"]),
                **arrays,
                provenance=provenance,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} is damaged ({error}); measure it again.") from error


def _said(passed: bool) -> str:
    return "passed" if passed else "failed"


_ARRAYS = ("margins", "drops", "random_drops")
_FACTS = ("emotions", "told", "counts", "scenarios")
