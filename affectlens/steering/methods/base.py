"""What a method is: vectors from a source, an operator, a gate, positions; or words; or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from affectlens.activations import ActivationStore
    from affectlens.circuits import Circuit
    from affectlens.datasets import Corpus
    from affectlens.geometry import Directions
    from affectlens.models import LanguageModel
    from affectlens.probes import Sweep
    from affectlens.steering.pack import SteeringPack
    from affectlens.steering.refine import RefineSettings

Turns = tuple[tuple[str, str], ...]
"""Exchanges before the prompt: what a user said and what was answered."""


class Material(Protocol):
    """What has been found in a model; methods make their vectors of it. Read when asked for."""

    @property
    def model(self) -> LanguageModel:
        """The model."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of all that vectors are made of."""
        ...

    @property
    def emotions(self) -> tuple[str, ...]:
        """Targets, in the order of all vectors."""
        ...

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks at whose output the residual mode adds."""
        ...

    @property
    def rms(self) -> Float[Tensor, " n_layers"] | None:
        """Mean RMS of the residual after each block, if measured."""
        ...

    @property
    def sweep(self) -> Sweep:
        """Probes of the residual stream."""
        ...

    @property
    def expression(self) -> ActivationStore:
        """Residual stream over replies that express each emotion, in complete groups."""
        ...

    @property
    def neutral_rows(self) -> ActivationStore:
        """Residual stream over neutral replies."""
        ...

    @property
    def matched(self) -> ActivationStore:
        """Residual stream over replies to one prompt in every tone, the neutral one too."""
        ...

    @property
    def heads(self) -> ActivationStore:
        """Head outputs (``z``) of every block over the texts of ``expression``."""
        ...

    @property
    def corpora(self) -> Sequence[Corpus]:
        """Replies that vectors are refined on."""
        ...

    def descent(self, place: str) -> RefineSettings:
        """How vectors are refined: ``"residual"`` or ``"circuit"``."""
        ...

    def directions(self, *, refined: bool) -> Directions:
        """Group-centred directions, as estimated or refined by likelihood."""
        ...

    def circuit(self, *, refined: bool) -> Circuit:
        """The circuit, with differences of group means or refined by likelihood."""
        ...

    def random_units(self) -> Circuit:
        """As many units in every sublayer, drawn at random and refined like the circuit."""
        ...

    def examples(self, emotion: str, count: int) -> Turns:
        """Exchanges in an emotion, of texts that give directions."""
        ...


@dataclass(frozen=True)
class Wording:
    """One way to ask for an emotion; ``{emotion}`` stands for its name.

    Attributes:
        name: What tables call it.
        system: System prompt; None if there is none.
        examples: How many exchanges in the emotion are shown before the prompt.
    """

    name: str
    system: str | None = None
    examples: int = 0

    def asks(self, emotion: str) -> str | None:
        """The system prompt for an emotion."""
        return None if self.system is None else self.system.replace("{emotion}", emotion)


@dataclass(frozen=True)
class Method:
    """A row of `METHODS`.

    Attributes:
        name: What users write.
        help: One line.
        formula: What is done to a hidden state, or what is said.
        unit: What strength 1 is; "" if there is none.
        source: Who published it.
        price: What it costs to make, and per token.
        use: When to take it.
        vectors: Makes a pack with one mode, strengths 1; None if nothing is steered.
        mode: Of that pack.
        operator: Name in `affectlens.steering.operators.OPERATORS`.
        positions: Tokens that are steered; None: as the pack says.
        gate: A condition with ``{emotion}`` for the target; None: none.
        strengths: Tried first, rising; those of operators that take shares are shares.
        wordings: Ways to ask for the emotion, the best of which is chosen on tuning scenarios;
            where there are vectors too, all strengths are tried with the first.
        aims: Which emotion is steered for a target; default: the target itself.
        control: Whether it stands for what a method must beat.
    """

    name: str
    help: str
    formula: str
    unit: str
    source: str
    price: str
    use: str
    vectors: Callable[[Material], SteeringPack] | None = None
    mode: str = ""
    operator: str = "add"
    positions: str | None = None
    gate: str | None = None
    strengths: tuple[float, ...] = ()
    wordings: tuple[Wording, ...] = ()
    aims: Callable[[str, Sequence[str]], str] = lambda target, _emotions: target
    control: bool = False

    def __post_init__(self) -> None:
        if self.vectors is None and not self.wordings:
            raise DataError(f"The method {self.name} neither steers nor asks; give it one of both.")
        if (self.vectors is None) != (not self.strengths):
            raise DataError(f"The method {self.name} needs vectors and strengths, or neither.")
        if list(self.strengths) != sorted(set(self.strengths)) or len(self.strengths) == 1:
            raise DataError(
                f"Strengths of the method {self.name} must rise, at least two of them, not "
                f"{list(self.strengths)}."
            )
