"""Mean difference without what tells the other emotions apart."""

from __future__ import annotations

import torch
from torch import Tensor

from affectlens.geometry.estimators.base import Displacements, Estimator, Rows, Weights
from affectlens.geometry.estimators.means import class_centred
from affectlens.geometry.leace import fit_leace


def _leace(rows: Rows, weight: Weights) -> Displacements:
    """Centred means ``c[e]`` after an eraser fitted on the rows of all other emotions.

    No linear probe then tells those apart, so what they share with ``e`` (fear and anger their
    arousal, say) is no part of what is left. Groups, where complete, are centred first, so that
    content is not counted as noise. A weight says how often a group was drawn.
    """
    x = rows.x
    if rows.grid is not None:
        x = x - rows.grid.mean(1)[rows.group]
    found = list[Tensor]()
    for centred, times in zip(class_centred(rows, weight), weight, strict=True):
        drawn = torch.arange(len(x), device=x.device).repeat_interleave(
            times[rows.group].round().long()
        )
        label, values = rows.emotion[drawn], x[drawn]
        cleaned = list[Tensor]()
        for e, direction in enumerate(centred):
            if rows.n_emotions < 3:  # a single other one has nothing to be told from
                cleaned.append(direction)
                continue
            others = label != e
            eraser = fit_leace(values[others], label[others])
            moved = direction.double() - (direction.double() @ eraser.right.T) @ eraser.left.T
            cleaned.append(moved.to(direction.dtype))
        found.append(torch.stack(cleaned))
    return torch.stack(found)


LEACE = Estimator(
    "leace",
    "mean difference without what tells the other emotions apart",
    _leace,
    grouped=False,
    neutral=False,
)
