"""What lies beside a pack in its run folder: directions of all layers, and its circuit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core import ArtefactError

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit
    from affectlens.geometry.directions import Directions
    from affectlens.steering.pack import SteeringPack

_DIRECTIONS = ("directions.safetensors",)
_CIRCUITS = ("circuit_refined.safetensors", "circuit.safetensors")


@dataclass(frozen=True, eq=False)
class Companions:
    """What was found.

    Attributes:
        directions: Of the pack's model and emotions.
        circuit: The same.
    """

    directions: Directions | None = None
    circuit: Circuit | None = None


def companions_of(pack: SteeringPack, file: str | Path | None) -> Companions:
    """Look beside a pack's file.

    What is of another model or of other emotions, or cannot be read, is no companion: the page
    then shows what the pack alone can tell.

    Args:
        pack: The pack.
        file: Where it was read from; None if it is in memory only.
    """
    if file is None:
        return Companions()
    folder = Path(file).parent
    return Companions(_directions(pack, folder), _circuit(pack, folder))


def _directions(pack: SteeringPack, folder: Path) -> Directions | None:
    from affectlens.geometry.directions import Directions

    for name in _DIRECTIONS:
        try:
            found = Directions.load(folder / name)
        except ArtefactError:
            continue
        if _fits(pack, found.provenance.model, found.emotions):
            return found
    return None


def _circuit(pack: SteeringPack, folder: Path) -> Circuit | None:
    from affectlens.circuits.circuit import Circuit

    for name in _CIRCUITS:
        try:
            found = Circuit.load(folder / name)
        except ArtefactError:
            continue
        made_of_it = pack.provenance.inputs.get("circuit") == found.provenance.fingerprint
        if made_of_it and _fits(pack, found.provenance.model, found.emotions):
            return found
    return None


def _fits(pack: SteeringPack, model: str | None, emotions: tuple[str, ...]) -> bool:
    return model == pack.provenance.model and tuple(emotions) == pack.emotions
