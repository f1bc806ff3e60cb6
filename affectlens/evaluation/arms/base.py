"""What an arm is: how its replies come about, and what it is steered with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from affectlens.circuits import Circuit
    from affectlens.geometry import Directions
    from affectlens.models import LanguageModel
    from affectlens.probes import Sweep
    from affectlens.steering import SteeringPack

REFINED = (0.6, 0.85, 1.2)
"""Strengths to try for vectors that a descent has made for strength 1."""
ANALYTIC_UNITS = (5.0, 9.0, 16.0)
"""Strengths to try for units' own differences, which are small beside what a descent makes."""


class Ingredients(Protocol):
    """What has been found in a model; packs are made of it. Each is read when it is asked for."""

    @property
    def model(self) -> LanguageModel:
        """The model."""
        ...

    @property
    def rms(self) -> Float[Tensor, " n_layers"]:
        """Mean RMS of the residual after each block."""
        ...

    @property
    def sweep(self) -> Sweep:
        """Its probes."""
        ...

    def directions(self, *, refined: bool) -> Directions:
        """Emotion directions, as estimated or refined; those refined lie where one steers."""
        ...

    def circuit(self, *, refined: bool) -> Circuit:
        """The circuit, with group differences or refined."""
        ...

    def random_units(self, draw: int, *, refined: bool) -> Circuit:
        """As many random units; draws count from 1."""
        ...


@dataclass(frozen=True)
class FoldedPack:
    """Vectors of one or several arms, whose strengths are then chosen on tuning scenarios.

    Attributes:
        name: Of its file.
        fold: Makes it, with strengths of 1.
    """

    name: str
    fold: Callable[[Ingredients], SteeringPack]


@dataclass(frozen=True)
class ImitatingPack:
    """Vectors that take their strengths from another pack.

    Attributes:
        name: Of its file.
        of: The pack it imitates.
        imitate: Makes it of that pack, strengths chosen, and of a seed.
    """

    name: str
    of: FoldedPack
    imitate: Callable[[SteeringPack, int], SteeringPack]


@dataclass(frozen=True)
class ArmKind:
    """What an arm is.

    Attributes:
        name: What users write.
        title: For people.
        help: One line.
        mode: Steering mode of its pack; "" if it is not steered.
        pack: What it is steered with; None if it is not.
        strengths: Of that pack, tried first, in natural units; none if the pack brings them.
        system: System prompt that asks for an emotion; None if there is none.
    """

    name: str
    title: str
    help: str
    mode: str = ""
    pack: FoldedPack | ImitatingPack | None = None
    strengths: tuple[float, ...] = ()
    system: Callable[[str], str] | None = None

    @property
    def has_targets(self) -> bool:
        """Whether its replies are to show an emotion; else one reply serves all targets."""
        return bool(self.mode or self.system)


def both_modes(found: Ingredients, *, refined: bool) -> SteeringPack:
    """Directions and circuit in one pack."""
    from affectlens.steering import SteeringPack

    layers = [site.layer for site in found.directions(refined=True).sites]
    directions = found.directions(refined=refined)
    return SteeringPack.merge(
        SteeringPack.from_directions(directions, found.model, layers=layers, rms=found.rms),
        SteeringPack.from_circuit(found.circuit(refined=refined), found.model),
    )
