"""What changing units found, and what may be said of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from affectlens.circuits.evidence.files import Measured
from affectlens.circuits.verdict import Finding
from affectlens.core.artefact import Provenance
from affectlens.core.statistics import Difference, against_draws, holm, paired_difference

NECESSARY_RATIO = 3.0
"""A circuit's units count as necessary if their loss costs so many times what random ones' does."""
ALPHA = 0.01

NOTHING = Difference(math.nan, math.nan, math.nan, math.nan, 0)
"""Of a comparison that no text has both sides of."""


def outcome(enough: bool, better: bool, clusters: int, tests: int) -> str:
    """In the fixed words.

    Args:
        enough: Whether the effect is as large as the word asks; failed if not.
        better: Whether it is above its control, at level `ALPHA`.
        clusters: Scenarios; untested if they are too few for that level, whatever they say.
        tests: How many emotions are tested.
    """
    if clusters and not enough:
        return "failed"
    if 2.0 ** (1 - clusters) * tests >= ALPHA:
        return "untested"
    return "passed" if better else "failed"


Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Effect:
    """One emotion at one count of units.

    Attributes:
        emotion: Whose units were changed.
        count: How many.
        change: Mean fall of its own margin in an ablation, mean rise of the margin towards it in an
            enhancement; nats per token.
        random: The same for random units, mean over draws.
        others: Mean change of the other emotions' margins, in their tests, under these units.
        share: Change relative to the margin of the model as it is.
        wrong_way: Share of texts whose margin went the other way.
        above_draws: ``(1 + draws at least as high) / (1 + draws)``, one-sided.
        difference: Own change minus random units', paired by text, over scenarios.
        specific: Own change minus the other emotions', likewise.
        p: Of ``difference``, by Holm over the emotions at this count.
        p_specific: Of ``specific``, likewise.
    """

    emotion: str
    count: int
    change: float
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
    def beyond_random(self) -> bool:
        """Whether the change is `NECESSARY_RATIO` times random units' at least, p below `ALPHA`."""
        return self.enough and self.difference.mean > 0 and self.p < ALPHA

    @property
    def enough(self) -> bool:
        """Whether the change is `NECESSARY_RATIO` times random units' at least."""
        return self.change > 0 and self.change >= NECESSARY_RATIO * self.random

    @property
    def own(self) -> bool:
        """Whether the emotion's own margin falls more than the others', p below `ALPHA`."""
        return self.specific.mean > 0 and self.p_specific < ALPHA


@dataclass(frozen=True, eq=False, repr=False)
class UnitCurve(Measured):
    """Changes of a task's margins as more and more units are changed.

    Attributes:
        emotions: Whose units: the first axis of ``changes`` and ``random_changes``.
        told: The task's emotions: columns of ``margins``, last axis of ``changes``.
        counts: How many units: the second axis.
        scenarios: Of each text.
        margins: Of the model as it is, nats per token; NaN where a text has no continuation.
        changes: Of every emotion's margin under the units of each, in the emotion's own test.
        random_changes: Of the emotion's own margin under each draw of random units.
        provenance: What made it.
    """

    emotions: tuple[str, ...]
    told: tuple[str, ...]
    counts: tuple[int, ...]
    scenarios: tuple[str, ...]
    margins: Float[Floats, "text told"]
    changes: Float[Floats, "emotion count text told"]
    random_changes: Float[Floats, "emotion count draw text"]
    provenance: Provenance
    kind: ClassVar[str] = ""
    arrays: ClassVar[tuple[str, ...]] = ("margins", "changes", "random_changes")
    facts: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "emotions": tuple,
        "told": tuple,
        "counts": lambda counts: tuple(int(n) for n in counts),
        "scenarios": tuple,
    }

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

    def _parts(self, e: int, k: int) -> dict[str, Any]:
        own = self.told.index(self.emotions[e])
        draws = self.random_changes[e, k]
        kept = ~np.isnan(self.changes[e, k, :, own]) & ~np.isnan(draws).all(axis=0)
        scenarios = [s for s, keep in zip(self.scenarios, kept, strict=True) if keep]
        drop, draws = self.changes[e, k, kept, own], draws[:, kept]
        others = np.delete(self.changes[e, k, kept], own, axis=1)
        told = ~np.isnan(others).all(axis=1)
        other = np.nanmean(others[told], axis=1) if told.any() else np.empty(0)
        beside = [s for s, keep in zip(scenarios, told, strict=True) if keep]
        run = draws[~np.isnan(draws).all(axis=1)]
        above = int((np.nanmean(run - drop, axis=1) >= 0).sum())
        random = np.nanmean(draws, axis=0)
        return {
            "emotion": self.emotions[e],
            "count": self.counts[k],
            "change": float(drop.mean()),
            "random": float(random.mean()),
            "others": float(other.mean()) if told.any() else math.nan,
            "share": float(drop.mean() / self.margins[kept, own].mean()),
            "wrong_way": float((drop < 0).mean()),
            "above_draws": (1 + above) / (1 + len(run)),
            "difference": against_draws(drop, draws, scenarios),
            "specific": paired_difference(drop[told], other, beside) if told.any() else NOTHING,
        }

    def brief(self) -> dict[str, object]:
        """Emotions, counts, texts, draws, what was taken out and by what, model."""
        asked = self.provenance.parameters
        return {
            "emotions": len(self.emotions),
            "counts": f"{self.counts[0]}-{self.counts[-1]} {asked['kind']}",
            "by": asked.get("by") or asked.get("to"),
            "texts": len(self.scenarios),
            "draws": self.random_changes.shape[2],
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row for every emotion and count."""
        return [
            {
                "emotion": one.emotion,
                "units": one.count,
                "change": one.change,
                "random": one.random,
                "low": one.difference.low,
                "high": one.difference.high,
                "p": one.p,
                "others": one.others,
                "p_specific": one.p_specific,
                "share": one.share,
                "wrong_way": one.wrong_way,
                "above_draws": one.above_draws,
            }
            for one in self.effects()
        ]


@dataclass(frozen=True, eq=False, repr=False)
class AblationCurve(UnitCurve):
    """Falls of the margins, each in its own context, as units are taken out."""

    kind: ClassVar[str] = "ablation"

    def findings(self) -> dict[str, dict[str, Finding]]:
        """Of each emotion at the largest count: necessary, specific."""
        last = self.effects()[-len(self.emotions) :]
        facts: dict[str, Any] = {
            "task": str(self.provenance.parameters.get("task", "")),
            "texts": len(self.scenarios),
            "draws": self.random_changes.shape[2],
        }
        return {
            effect.emotion: {
                word: replace(found, **facts) for word, found in _words(effect, len(last)).items()
            }
            for effect in last
        }


@dataclass(frozen=True, eq=False, repr=False)
class EnhancementCurve(UnitCurve):
    """Rises of the margins towards each emotion, in contexts of others, as units are set."""

    kind: ClassVar[str] = "enhancement"


def _words(effect: Effect, tests: int) -> dict[str, Finding]:
    what = f"fall of the margin without {effect.count} units, nats per token"
    return {
        "necessary": Finding(
            outcome(effect.enough, effect.beyond_random, effect.difference.clusters, tests),
            f"{what}; beside it, without random ones",
            effect.change,
            effect.random,
            effect.p,
            units=effect.count,
        ),
        "specific": Finding(
            outcome(effect.specific.mean > 0, effect.own, effect.specific.clusters, tests),
            f"{what}; beside it, of the other emotions' margins",
            effect.change,
            None if math.isnan(effect.others) else effect.others,
            None if math.isnan(effect.p_specific) else effect.p_specific,
            units=effect.count,
        ),
    }
