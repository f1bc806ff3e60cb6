"""``p → (1 + s)·p``: make more of what there is of an emotion, and of its absence."""

from __future__ import annotations

import torch

from affectlens.steering.operators.operator import Operator, PerEmotion


def _more(strengths: PerEmotion, lengths: PerEmotion) -> tuple[PerEmotion, PerEmotion]:
    return strengths, torch.zeros_like(lengths)


AMPLIFY = Operator(
    "amplify", "Multiply what there is of the emotion by 1 + strength", projects=_more, share=20.0
)
