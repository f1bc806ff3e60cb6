"""``p → l``: set the projection to the length of the dose, whatever it was."""

from __future__ import annotations

import torch

from affectlens.steering.operators.operator import Operator, PerEmotion


def _set(strengths: PerEmotion, lengths: PerEmotion) -> tuple[PerEmotion, PerEmotion]:
    return -torch.ones_like(strengths), lengths


CLAMP = Operator("clamp", "Set the emotion to the dose, whatever it was", projects=_set)
