"""What was left of a margin, and what may be said of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from affectlens.circuits.evidence.curve import ALPHA, outcome
from affectlens.circuits.evidence.files import Measured
from affectlens.circuits.evidence.items import with_margin
from affectlens.circuits.verdict import Finding
from affectlens.core.artefact import Provenance
from affectlens.core.statistics import (
    Difference,
    against_draws,
    holm,
    ratio_interval,
)

SUFFICIENT = 0.5
"""A circuit alone is sufficient if it keeps so much of the margin, and more than random ones."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Faithfulness:
    """Of one emotion.

    Attributes:
        emotion: Whose.
        f: At each share of the units.
        random: The same of random units, mean over draws.
        cpr, cmd: Area under f, and of ``|1 - f|``, over shares from 0 to 100 %; of random units
            ``random_cpr`` and ``random_cmd``.
        circuit: f of the circuit's own units alone; NaN, as all f, if the model's margin is not
            above that with all units ablated, so that there is nothing to keep.
        interval: 95 % of it over scenarios, both ends of the ratio drawn along.
        circuit_random: Mean f of random circuits of the same shape.
        without: f of the model without the circuit; what the circuit is complete for is missing.
        difference: Margin of the circuit alone minus that of random ones, paired by text.
        p: Of it, by Holm over the emotions.
    """

    emotion: str
    f: tuple[float, ...]
    random: tuple[float, ...]
    cpr: float
    cmd: float
    random_cpr: float
    random_cmd: float
    circuit: float
    interval: tuple[float, float]
    circuit_random: float
    without: float
    difference: Difference
    p: float

    @property
    def sufficient(self) -> bool:
        """Whether the circuit alone keeps `SUFFICIENT` of the margin, above random ones."""
        better = self.difference.mean > 0 and self.p < ALPHA
        return self.circuit >= SUFFICIENT and better


@dataclass(frozen=True, eq=False, repr=False)
class FaithfulnessCurve(Measured):
    """Margins, own context less another tone's, under each condition; NaN where a text has none.

    Attributes:
        emotions: The first axis of all.
        shares: Percent of units that are left: the second axis of ``left`` and ``random_left``.
        scenarios: Of each text.
        whole, empty: Of the model as it is, and with all units ablated.
        circuit, without: With the circuit alone, and with all but the circuit.
        left: With the highest units alone.
        random_circuits: With random circuits of the same shape alone.
        random_left: With so many random units alone.
        provenance: What made it.
    """

    emotions: tuple[str, ...]
    shares: tuple[float, ...]
    scenarios: tuple[str, ...]
    whole: Float[Floats, "emotion text"]
    empty: Float[Floats, "emotion text"]
    circuit: Float[Floats, "emotion text"]
    without: Float[Floats, "emotion text"]
    left: Float[Floats, "emotion share text"]
    random_circuits: Float[Floats, "emotion draw text"]
    random_left: Float[Floats, "emotion share draw text"]
    provenance: Provenance
    kind: ClassVar[str] = "faithfulness"
    arrays: ClassVar[tuple[str, ...]] = (
        "whole",
        "empty",
        "circuit",
        "without",
        "left",
        "random_circuits",
        "random_left",
    )
    facts: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "emotions": tuple,
        "shares": lambda shares: tuple(float(x) for x in shares),
        "scenarios": tuple,
    }

    def results(self) -> list[Faithfulness]:
        """Of every emotion."""
        parts = [self._parts(e) for e in range(len(self.emotions))]
        p = holm([part["difference"].p for part in parts])
        return [Faithfulness(p=float(p[e]), **part) for e, part in enumerate(parts)]

    def share_p(self) -> Float[Floats, "emotion share"]:
        """Of each share of the units against as many random ones, by Holm over all of them.

        NaN for all units, of which there is but one choice.
        """
        found = np.full(self.left.shape[:2], np.nan)
        for e in range(len(self.emotions)):
            kept, scenarios = with_margin(self.whole[e], self.scenarios)
            for k, share in enumerate(self.shares):
                if share < 100:
                    random = self.random_left[e, k][:, kept]
                    found[e, k] = against_draws(self.left[e, k, kept], random, scenarios).p
        return holm(found.ravel()).reshape(found.shape)

    def findings(self) -> dict[str, dict[str, Finding]]:
        """Of each emotion: sufficient."""
        return {one.emotion: {"sufficient": self._finding(one)} for one in self.results()}

    def _finding(self, one: Faithfulness) -> Finding:
        facts: dict[str, Any] = {
            "task": str(self.provenance.parameters.get("task", "")),
            "texts": len(self.scenarios),
            "draws": self.random_circuits.shape[1],
        }
        if math.isnan(one.circuit):
            return Finding(
                what="the model's margin is not above that with all units ablated", **facts
            )
        clusters = one.difference.clusters
        return Finding(
            outcome(one.circuit >= SUFFICIENT, one.sufficient, clusters, len(self.emotions)),
            "share of the margin that the circuit keeps alone; beside it, random ones",
            one.circuit,
            one.circuit_random,
            one.p,
            **facts,
        )

    def _parts(self, e: int) -> dict[str, Any]:
        kept, scenarios = with_margin(self.whole[e], self.scenarios)
        low, high = self.empty[e, kept], self.whole[e, kept]
        span = float(high.mean() - low.mean())

        def f(margin: Float[Floats, "... text"]) -> Any:
            """Of the means over texts; a text's own denominator may be near zero."""
            return (margin[..., kept].mean(-1) - low.mean()) / (span if span > 0 else math.nan)

        curve, random = f(self.left[e]), f(self.random_left[e]).mean(-1)
        circuit, draws = self.circuit[e, kept], self.random_circuits[e][:, kept]
        return {
            "emotion": self.emotions[e],
            "f": tuple(map(float, curve)),
            "random": tuple(map(float, random)),
            "cpr": area(self.shares, curve),
            "cmd": area(self.shares, np.abs(1 - curve), at_zero=1.0),
            "random_cpr": area(self.shares, random),
            "random_cmd": area(self.shares, np.abs(1 - random), at_zero=1.0),
            "circuit": float(f(self.circuit[e])),
            "interval": ratio_interval(circuit - low, high - low, scenarios),
            "circuit_random": float(f(self.random_circuits[e]).mean()),
            "without": float(f(self.without[e])),
            "difference": against_draws(circuit, draws, scenarios),
        }

    def brief(self) -> dict[str, object]:
        """Emotions, shares, texts, draws, by what the rest is replaced, model."""
        asked = self.provenance.parameters
        return {
            "emotions": len(self.emotions),
            "shares": f"{self.shares[0]:g}-{self.shares[-1]:g} %",
            "by": asked["by"],
            "texts": len(self.scenarios),
            "draws": self.random_circuits.shape[1],
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row for every emotion and share, then one for the circuit itself.

        p of shares is by Holm over emotions and shares, that of circuits over emotions.
        """
        rows, share_p = list[dict[str, object]](), self.share_p()
        for e, one in enumerate(self.results()):
            areas = {"cpr": one.cpr, "cmd": one.cmd}
            areas |= {"random_cpr": one.random_cpr, "random_cmd": one.random_cmd}
            each = zip(self.shares, one.f, one.random, share_p[e].tolist(), strict=True)
            for share, f, random, p in each:
                left = {"left": f"{share:g} %", "f": f, "random": random, "p": p}
                rows.append({"emotion": one.emotion, **left, **areas})
            found = {"f": one.circuit, "random": one.circuit_random, "p": one.p}
            found["without"] = one.without
            rows.append({"emotion": one.emotion, "left": "circuit", **found, **areas})
        return rows


def area(
    shares: tuple[float, ...], values: Float[Floats, " share"], *, at_zero: float = 0.0
) -> float:
    """Area under values at percents of the units, from 0 to 100 %, by trapezoids.

    Nothing left is f = 0; beyond the largest share the value is taken to stay.

    Args:
        shares: Percents, rising.
        values: At each.
        at_zero: At 0 %.
    """
    x = np.array([0.0, *shares, *([100.0] if shares[-1] < 100 else [])]) / 100
    y = np.array([at_zero, *values, *([values[-1]] if shares[-1] < 100 else [])])
    return float(np.trapezoid(y, x))
