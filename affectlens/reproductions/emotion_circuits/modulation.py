"""What the published code adds while a model writes: to the residual, and to a circuit's units.

Both act on "the last position of a pass": the last prompt token when the prompt is read, then every
token as it is written. So prompts must be read in one pass, padded on the left.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from affectlens.core.places import WritePoint
from affectlens.models.hooking.hooks import Writer

Writers = Mapping[WritePoint, Writer]


def rms_steering(directions: Mapping[int, Float[Tensor, " d_model"]], alpha: float) -> Writers:
    """``h ← h + α · RMS(h) · v`` at the last position, after the blocks given.

    Args:
        directions: Unit vector by block.
        alpha: In units of the RMS that the residual has at that token.

    Source: arXiv 2510.11328 §4, script 03/1.
    """

    def writer(v: Float[Tensor, " d_model"]) -> Writer:
        def write(value: Tensor) -> Tensor:
            last = value[:, -1].float()
            rms = last.square().mean(-1, keepdim=True).add(1e-12).sqrt()
            new = value.clone()
            new[:, -1] = (last + alpha * rms * v.to(last.device)).to(value.dtype)
            return new

        return write

    return {WritePoint(layer, "resid_post"): writer(v) for layer, v in directions.items()}


def circuit_modulation(
    attention: Float[Tensor, "layer d_model"],
    mlp: Float[Tensor, "layer d_model"],
    strength: float,
    *,
    everywhere: bool,
) -> Writers:
    """Add ``s · W_O Δ`` and ``s · W_down Δ`` to the outputs of the two maps.

    Args:
        attention, mlp: Of one emotion, from `Circuit.folded`; layers that write nothing are
            passed over.
        strength: ``s``.
        everywhere: Change attention at every position of a pass, as published; otherwise at the
            last one, as the MLP always is.

    Source: arXiv 2510.11328 §7, script 07/4.
    """

    def writer(delta: Float[Tensor, " d_model"], all_positions: bool) -> Writer:
        def write(value: Tensor) -> Tensor:
            new = value.clone()
            where = new if all_positions else new[:, -1]
            where += (strength * delta).to(value)
            return new

        return write

    parts = (("o_proj_out", attention, everywhere), ("down_proj_out", mlp, False))
    return {
        WritePoint(layer, point): writer(deltas[layer], all_positions)
        for point, deltas, all_positions in parts
        for layer in range(len(deltas))
        if bool(deltas[layer].any())
    }
