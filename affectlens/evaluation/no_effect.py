"""Why steering does nothing, or breaks text: told from measured quantities, in this order."""

from __future__ import annotations

from dataclasses import dataclass

HEARD = 0.2
"""Gain in the share of replies from which on steering works."""
SMALL = 0.02
"""Length of what is added, relative to the residual stream's, below which it is too weak."""
STILL = 0.02
"""Nats per token below which the next token is not moved."""
CLOSED = 0.1
"""Share of the ungated movement below which a gate is closed."""


@dataclass(frozen=True)
class Effect:
    """What was measured of a request on tuning events.

    Attributes:
        heard: Share of replies in which the judge finds the emotion, less that of unsteered ones.
        named: The same by the judge of feeling words.
        perplexity_ratio: To unsteered replies.
        kl: Nats per token from the unsteered distribution.
        kl_ungated: The same without the request's gate; None if it has none.
        size: Largest length of what is added at a layer, relative to the residual stream there;
            None if the pack does not know the stream's size.
    """

    heard: float
    named: float
    perplexity_ratio: float
    kl: float
    kl_ungated: float | None = None
    size: float | None = None


@dataclass(frozen=True)
class Reason:
    """Why there is an effect or none.

    Attributes:
        name: In two words or three.
        sentence: With the numbers, and what to do.
    """

    name: str
    sentence: str


def reason(effect: Effect, *, max_perplexity_ratio: float) -> Reason:
    """What stands in the way, the first that applies.

    Args:
        effect: What was measured.
        max_perplexity_ratio: Above it text counts as broken.
    """
    heard = f"{effect.heard:+.2f} of replies"
    if effect.perplexity_ratio > max_perplexity_ratio:
        return Reason(
            "text breaks",
            f"The perplexity ratio is {effect.perplexity_ratio:.1f} (limit "
            f"{max_perplexity_ratio:g}); take a smaller strength, or fewer layers.",
        )
    if effect.heard >= HEARD:
        return Reason("it works", f"The emotion is heard in {heard}.")
    if effect.kl_ungated is not None and effect.kl < CLOSED * effect.kl_ungated:
        return Reason(
            "gate closed",
            f"Without the gate the next token moves by {effect.kl_ungated:.3f} nats, with it by "
            f"{effect.kl:.3f}: the gate lets hardly a token pass; take a lower threshold, or none.",
        )
    if effect.size is not None and effect.size < SMALL:
        return Reason(
            "too weak",
            f"What is added is {effect.size:.1%} of the residual stream's length at most; take a "
            "larger strength, or more layers.",
        )
    if effect.kl < STILL:
        size = "" if effect.size is None else f" ({effect.size:.0%} of the stream's length)"
        return Reason(
            "model ignores it",
            f"The vector is there{size}, but the next token moves by {effect.kl:.3f} nats only: "
            "what follows these layers takes no notice; steer other layers.",
        )
    if effect.named >= HEARD:
        return Reason(
            "judge deaf",
            f"{effect.named:+.2f} of replies name the feeling and the judge finds it in {heard}: "
            "try another judge, and read the replies.",
        )
    return Reason(
        "wrong site",
        f"The next token moves by {effect.kl:.3f} nats, but not towards the emotion (heard in "
        f"{heard}): the vector means something else there; try other layers, or vectors of another "
        "method.",
    )
