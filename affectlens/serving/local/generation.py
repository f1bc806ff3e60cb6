"""What the engine is asked for, and what it says while it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from affectlens.models.generation.decoding import GenerationSettings
from affectlens.serving.reply_readings import Scores
from affectlens.steering.positions import interval

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack
    from affectlens.steering.spec import SteeringSpec


@dataclass(frozen=True, eq=False)
class Steered:
    """How a reply is steered and read.

    Attributes:
        name: What clients call the pack.
        pack: Its vectors and probes.
        spec: Resolved by it; an empty one steers nothing.
        read: Whether emotions are read along the reply.
    """

    name: str
    pack: SteeringPack
    spec: SteeringSpec
    read: bool = False


@dataclass(frozen=True, eq=False)
class Generation:
    """One reply that is wanted.

    Attributes:
        prompt: Token ids.
        settings: Of decoding; its seed is this reply's own.
        steered: None: as the model is.
        stop: The reply ends before the first of these.
        logprobs: How many likeliest tokens to tell beside each that was chosen; None: no numbers.
        ignore_eos: Write on where the model would end.
    """

    prompt: tuple[int, ...]
    settings: GenerationSettings
    steered: Steered | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False

    @property
    def longest(self) -> int:
        """Tokens of prompt and longest reply."""
        return len(self.prompt) + self.settings.max_new_tokens

    @property
    def untouched(self) -> int:
        """How many leading tokens of the prompt are computed as without steering."""
        if self.steered is None or not self.steered.spec:
            return len(self.prompt)
        start, _ = interval(str(self.steered.spec.positions), len(self.prompt))
        return max(0, min(start, len(self.prompt)))


@dataclass(frozen=True)
class Token:
    """A generated token.

    Attributes:
        id: Its number.
        logprob: Natural logarithm of its probability, as the model gives it before penalties and
            temperature; None if it was not asked for.
        top: The likeliest tokens, each with the same.
    """

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What a step added to a reply.

    Attributes:
        text: New text; it may lag behind the tokens (half a character, the beginning of a stop
            string).
        token: New token, the one that ends the reply included.
        scores: Of the pack's probes where that token was chosen, per layer and class; None if
            nothing is read.
        finish: ``"stop"`` or ``"length"`` with the last piece.
    """

    text: str
    token: Token
    scores: Scores | None = None
    finish: str | None = None


@dataclass(frozen=True)
class Failed:
    """The reply cannot be finished.

    Attributes:
        error: Why; for clients if it is an `AffectLensError`.
    """

    error: Exception


Push = Callable[[Piece | Failed], object]
"""Takes what the engine says of one reply, on the engine's thread; must not wait."""
