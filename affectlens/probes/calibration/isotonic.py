"""Isotonic calibration: each class's probability by a rising curve, whatever its shape.

Of each class the curve that never falls and fits best whether the class is there, by the
probability claimed (scikit-learn's ``IsotonicRegression``); of exclusive classes the results are
made to sum to 1. It needs more rows than a temperature, and may tie what differed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.probes.calibration.base import CalibrationKind, check_rows, linked


@dataclass(frozen=True, eq=False)
class Isotonic:
    """Curves through points, level beyond them.

    Attributes:
        claimed: Where the points lie; the last one is repeated where a class has fewer.
        found: What probability the rows there had.
    """

    claimed: Float[Tensor, "class point"]
    found: Float[Tensor, "class point"]

    @property
    def kind(self) -> str:
        """See `affectlens.probes.calibration.base.Calibration`."""
        return ISOTONIC.name

    def probabilities(
        self, scores: Float[Tensor, "n class"], link: str, exclusive: bool
    ) -> Float[Tensor, "n class"]:
        """See `affectlens.probes.calibration.base.Calibration`."""
        claims = linked(scores.double(), link, exclusive).mT.contiguous()
        xs, ys = self.claimed.to(claims.device), self.found.to(claims.device)
        right = torch.searchsorted(xs, claims).clamp(1, xs.shape[1] - 1)
        x0, x1 = xs.gather(1, right - 1), xs.gather(1, right)
        share = ((claims - x0) / (x1 - x0).clamp_min(1e-300)).clamp(0, 1)
        y0, y1 = ys.gather(1, right - 1), ys.gather(1, right)
        each = (y0 + share * (y1 - y0)).mT
        if exclusive:
            each = each / each.sum(-1, keepdim=True)
        return each.to(scores.dtype)

    def parts(self) -> dict[str, Tensor]:
        """All that a file needs to hold."""
        return {"claimed": self.claimed, "found": self.found}


def fit_isotonic(
    scores: Float[Tensor, "n class"],
    truth: Float[Tensor, "n class"],
    link: str,
    exclusive: bool,
) -> Isotonic:
    """A curve per class.

    Args:
        scores: Of the probe.
        truth: 0 or 1.
        link: ``"softmax"`` or ``"sigmoid"``.
        exclusive: Whether a row has one class.

    Raises:
        DataError: If there are no rows, or a class does not occur.
    """
    from sklearn.isotonic import IsotonicRegression

    check_rows(scores, truth)
    claims = linked(scores.double(), link, exclusive).cpu().numpy()
    # So many rows cannot rule out what they have not seen: no probability is 0 or 1.
    least = 1 / (len(scores) + 2)
    curves = list[tuple[Tensor, Tensor]]()
    for k in range(claims.shape[1]):
        curve = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
        curve.fit(claims[:, k], truth[:, k].cpu().numpy())
        curves.append(
            (torch.tensor(curve.X_thresholds_).double(), torch.tensor(curve.y_thresholds_).double())
        )
    most = max(2, *(len(x) for x, _ in curves))
    filled = [
        torch.stack([torch.cat([p, p[-1:].expand(most - len(p))]) for p in side])
        for side in zip(*curves, strict=True)
    ]
    return Isotonic(*filled)


def restore_isotonic(parts: Mapping[str, Any]) -> Isotonic:
    """Inverse of `Isotonic.parts`."""
    return Isotonic(parts["claimed"], parts["found"])


ISOTONIC = CalibrationKind(
    "isotonic",
    "a rising curve per class; needs more rows, and stays with the probe",
    fit_isotonic,
    restore_isotonic,
)
