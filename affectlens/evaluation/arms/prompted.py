"""The rival: the model is asked for the emotion, and not steered."""

from __future__ import annotations

from affectlens.datasets import elicitation_prompt
from affectlens.evaluation.arms.base import ArmKind


def system(emotion: str) -> str:
    """Asks for the emotion and for nothing else, no limit of length either."""
    return elicitation_prompt(emotion, limited=False)


PROMPTED = ArmKind("prompted", "prompted", "a system prompt asks for the emotion", system=system)
