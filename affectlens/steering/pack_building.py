"""Packs of directions and of circuits, and the probes that are put into them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

from jaxtyping import Float
from torch import Tensor

from affectlens.steering.building import (
    fields_from_circuit,
    fields_from_directions,
    gates_of,
    readout_of,
)

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel
    from affectlens.probes.probe import Probe
    from affectlens.probes.sweep import Sweep
    from affectlens.steering.pack import SteeringPack


class PackBuilding:
    """How a pack is made; a base of `affectlens.steering.SteeringPack`, whose fields it fills."""

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...

    @classmethod
    def from_directions(
        cls,
        directions: Directions,
        model: LanguageModel,
        *,
        layers: str | Sequence[int] | Mapping[str, str | Sequence[int]] | None = None,
        rms: Float[Tensor, " n_layers"] | None = None,
        positions: str = "last_prompt+generated",
        force: bool = False,
    ) -> Self:
        """Steer the residual stream along directions; strength 1 is the natural dose.

        Args:
            directions: Of ``resid_post`` at the layers wanted.
            model: The model they were made on.
            layers: ``"10-19"``, ``"8,12,16"`` or layer numbers, for all emotions or per emotion.
                Default: the middle third.
            rms: Mean RMS of the residual after each block, for unit ``rms``.
            positions: Which tokens to steer by default.
            force: Accept directions of another model of the same shape.

        Raises:
            UnknownNameError: If a layer or emotion does not exist.
            DataError: If the directions lack a layer.
            MismatchError: If they are of another model.
        """
        return cls(**fields_from_directions(directions, model, layers, rms, positions, force=force))

    @classmethod
    def from_circuit(
        cls,
        circuit: Circuit,
        model: LanguageModel,
        *,
        positions: str = "last_prompt+generated",
        force: bool = False,
    ) -> Self:
        """Steer with a circuit, folded into the outputs of attention and MLP.

        Raises:
            MismatchError: If the circuit is of another model.
        """
        return cls(**fields_from_circuit(circuit, model, positions, force=force))

    def with_readout(
        self,
        probes: Sweep | Probe | Sequence[Probe],
        layers: int | Sequence[int] | None = None,
        *,
        gates: int | Sequence[int] | None = None,
        force: bool = False,
    ) -> SteeringPack:
        """The same pack with probes of the residual stream, for live readings and gates.

        Args:
            probes: Of ``resid_post``, or ``resid_pre@0`` (embeddings); temperatures are folded in.
            layers: Blocks to read after; default: the best of a sweep, all of probes given.
            gates: Blocks after which gates are decided, -1 for the embeddings; default: by mode
                and emotion the best before the first place it steers; the last of them decides.
            force: Accept probes of another model of the same shape.

        Raises:
            MismatchError, UnknownNameError: If probes are of another model, or lack a layer.
            DataError: If a probe cannot be folded.
        """
        pack = cast("SteeringPack", self)
        readout = readout_of(pack, probes, layers, force=force)
        return replace(pack, readout=readout, gates=gates_of(pack, probes, gates))
