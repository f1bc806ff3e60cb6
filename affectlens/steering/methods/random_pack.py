"""Random directions of the norms of a pack's vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from affectlens.core.errors import DataError
from affectlens.steering.classifier import GRADIENT
from affectlens.steering.low_rank import LOW_RANK

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack


def random_pack(pack: SteeringPack, mode: str = "residual", seed: int = 0) -> SteeringPack:
    """The same pack with random directions of equal norm, layer by layer and emotion by emotion.

    Each emotion gets one random direction, the same at every layer as far as the stream is
    concerned: a fresh one per layer would largely cancel and be too weak a control.

    Args:
        pack: What to imitate; strengths, layers and positions stay.
        mode: The mode to replace; the others are dropped.
        seed: Of the directions.

    Raises:
        UnknownNameError: If the pack has no such mode.
        DataError: If the mode steers by maps or a classifier, which are no directions.
    """
    if mode in (LOW_RANK, GRADIENT):
        raise DataError(f"The mode {mode} has no directions to draw at random; use another mode.")
    generator = torch.Generator().manual_seed(seed)
    vectors = {}
    for point in pack.points(mode):
        name = f"{mode}.{point}"
        true = pack.vectors[name]
        drawn = torch.randn(true.shape[0], 1, true.shape[2], generator=generator)
        drawn = drawn / drawn.norm(dim=-1, keepdim=True)
        vectors[name] = drawn * true.norm(dim=-1, keepdim=True)
    return replace(
        pack,
        vectors=vectors,
        layers={name: pack.layers[name] for name in vectors},
        recommended={mode: pack.recommended[mode]},
        positions={mode: pack.positions[mode]},
        # What was measured is of the true directions and of modes that are no longer there.
        enough={},
        responses={},
        low_rank={},
        classifier=None,
        first=None,
        provenance=replace(
            pack.provenance,
            parameters={**pack.provenance.parameters, "random_directions": seed},
            inputs={"pack": pack.fingerprint},
        ),
    )
