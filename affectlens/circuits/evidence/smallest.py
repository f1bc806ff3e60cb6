"""How many of a ranking's units are enough: the smallest share that is sufficient alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.circuits.evidence.curve import ALPHA
from affectlens.circuits.evidence.faithfulness_curve import SUFFICIENT
from affectlens.circuits.units import KINDS
from affectlens.circuits.verdict import Smallest

if TYPE_CHECKING:
    from affectlens.circuits.evidence.faithfulness_curve import FaithfulnessCurve, Floats


def smallest(curve: FaithfulnessCurve, sizes: Int[Tensor, "layer 2"]) -> dict[str, Smallest]:
    """Of each emotion the smallest share of all units that alone keeps half of the margin.

    And more than as many random units, p < .01. The smallest of several shares is looked for, so
    p is by Holm over all emotions and shares together.

    Args:
        curve: Faithfulness.
        sizes: Heads and neurons of each layer, of the circuit that the curve is of.
    """
    p = curve.share_p()
    tests = int((~np.isnan(p)).sum())
    found = dict[str, Smallest]()
    for e, one in enumerate(curve.results()):
        # With fewer scenarios no p is small enough, whatever they say.
        if np.isnan(one.circuit) or 2.0 ** (1 - one.difference.clusters) * tests >= ALPHA:
            found[one.emotion] = Smallest("untested")
            continue
        enough = [
            k
            for k, (f, random) in enumerate(zip(one.f, one.random, strict=True))
            if f >= SUFFICIENT and f > random and p[e, k] < ALPHA
        ]
        if not enough:
            found[one.emotion] = Smallest("failed", share=_largest(curve, p))
            continue
        k = enough[0]
        counts = units_left(curve, sizes, curve.shares[k])
        found[one.emotion] = Smallest(
            "passed", curve.shares[k], **counts, f=one.f[k], random=one.random[k], p=float(p[e, k])
        )
    return found


def units_left(
    curve: FaithfulnessCurve, sizes: Int[Tensor, "layer 2"], share: float
) -> dict[str, int]:
    """How many units of each kind a share is; 0 of a kind that was left as it is."""
    asked = curve.provenance.parameters["kinds"]
    return {
        kind: int(-(-int(sizes[:, KINDS.index(kind)].sum()) * share // 100)) if kind in asked else 0
        for kind in KINDS
    }


def _largest(curve: FaithfulnessCurve, p: Float[Floats, "emotion share"]) -> float:
    """The largest share that could be told from random units."""
    return max(s for s, of in zip(curve.shares, p.T, strict=True) if not np.isnan(of).all())
