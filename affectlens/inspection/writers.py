"""Which heads and neurons wrote an emotion into the stream at one token.

What the stream holds after block ``L`` is the sum of the embedding and of all that heads,
neurons, biases and steering have added up to there, so its projection on a direction splits into
their shares exactly: ``⟨h_L, v⟩ = ⟨embedding, v⟩ + Σ heads + Σ neurons + Σ biases + steering``.
Shares are in natural doses of the direction (``v/|v|²``). Where a norm follows a sublayer, its
scale is held at what it was at that token. What the parts do not explain in the steered run is
what the steering added; in the unsteered run nothing may be left.

A sublayer that is not taken apart into units (a mixture of experts, a state space) counts as one
writer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.contributions import RESIDUE, RESIDUE_16
from affectlens.core import DataError, ModelError
from affectlens.inspection.sublayers import StreamReadings, SublayerShares
from affectlens.inspection.twin_pass import STEERED, UNSTEERED, Said

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit
    from affectlens.inspection.lenses import Lens


@dataclass(frozen=True)
class Writer:
    """A head, a neuron, or a sublayer that is not taken apart.

    Attributes:
        part: ``"head"``, ``"neuron"``, ``"attention"``, ``"mlp"`` or ``"block"``.
        layer: Its block.
        index: Which of them; None for a whole sublayer.
        steered, unsteered: What it adds at this token, in natural doses.
    """

    part: str
    layer: int
    index: int | None
    steered: float
    unsteered: float

    @property
    def name(self) -> str:
        """``"head 3.5"``, ``"neuron 12.870"``, ``"mlp 4"``."""
        return f"{self.part} {self.layer}" + ("" if self.index is None else f".{self.index}")


@dataclass(frozen=True)
class TokenWriters:
    """Where an emotion at a token comes from, in natural doses; of steered and unsteered run.

    The sums below, ``units_circuit`` aside, add up to ``total``.

    Attributes:
        emotion: Whose direction.
        layer: After which block the stream was read.
        total: Projection of the stream.
        words: What the embedding of the token itself brings.
        units: All heads, neurons and whole sublayers together.
        biases: Those of both projections.
        steering: What was added to the stream.
        units_circuit: The circuit's units together; None if there is no circuit.
        largest: The largest in size: of the circuit, or of all if there is none.
    """

    emotion: str
    layer: int
    total: tuple[float, float]
    words: tuple[float, float]
    units: tuple[float, float]
    biases: tuple[float, float]
    steering: tuple[float, float]
    units_circuit: tuple[float, float] | None
    largest: tuple[Writer, ...]


def writers_at(
    said: Said,
    at: int,
    emotion: str,
    lens: Lens,
    *,
    layer: int | None = None,
    circuit: Circuit | None = None,
    top: int = 8,
) -> TokenWriters:
    """Split an emotion's projection at the place where a token was chosen.

    Args:
        said: The reply and its steering.
        at: Number of the token, from 0; the length of the reply asks for the one that would come.
        emotion: A column of the lens.
        lens: Directions.
        layer: One of the lens's; default: its last.
        circuit: Of the same model: only its units of the emotion are listed.
        top: Most writers in the list.

    Raises:
        DataError: If there is no such token or direction, or the lens is one of probes.
        MismatchError: If the circuit is of another model.
        ModelError: If units and biases do not sum to what the unsteered model adds.
    """
    if lens.bias is not None:
        raise DataError("Writers are told along directions; the lens given holds probes.")
    deepest = lens.layers[-1] if layer is None else layer
    vector = lens.vector(deepest, emotion)
    if circuit is not None:
        circuit.provenance.require_model(said.model.fingerprint, said.model.name, force=said.force)
    found = StreamReadings.of(said.upto(at), deepest)
    direction = vector / vector.square().sum()
    shares = [
        SublayerShares.of(found, part, direction)
        for part in said.model.anatomy.blocks[: deepest + 1]
    ]
    total = found.last @ direction
    words = found.first @ direction
    units = torch.stack([one.units_sum for one in shares]).sum(0)
    biases = torch.stack([one.biases for one in shares]).sum(0)
    left = total - words - units - biases
    size = max(float(x.abs().max()) for x in (total, words, *(one.scale for one in shares)))
    _require_exact(said, float(left[UNSTEERED].abs()), size)
    chosen = None if circuit is None else _chosen(circuit, emotion)
    writers = [
        Writer(part, one.layer, index, *pair)
        for one in shares
        for part, index, pair in one.each()
        if chosen is None or (part, one.layer, index) in chosen
    ]
    writers.sort(key=lambda one: -abs(one.steered))
    of_circuit = (sum(w.steered for w in writers), sum(w.unsteered for w in writers))
    return TokenWriters(
        emotion,
        deepest,
        _pair(total),
        _pair(words),
        _pair(units),
        _pair(biases),
        _pair(left),
        None if chosen is None else of_circuit,
        tuple(writers[:top]),
    )


def _pair(values: Float[Tensor, 2]) -> tuple[float, float]:
    return float(values[STEERED]), float(values[UNSTEERED])


def _chosen(circuit: Circuit, emotion: str) -> set[tuple[str, int, int | None]]:
    kinds: Mapping[str, str] = {"heads": "head", "neurons": "neuron"}
    return {
        (name, unit.layer, unit.index)
        for kind, name in kinds.items()
        for unit in circuit.units(emotion, kind)
    }


def _require_exact(said: Said, left: float, size: float) -> None:
    bound = RESIDUE if said.model.dtype == torch.float32 else RESIDUE_16
    if not left <= bound * max(size, 1e-12):
        raise ModelError(
            f"Heads, neurons and biases of {said.model.name} do not sum to what its blocks add "
            f"({left / max(size, 1e-12):.2g} of it is left), so no writers can be told."
        )
