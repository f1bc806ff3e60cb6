"""``p → (1 - s)·p``: take a share of an emotion away (arXiv 2406.11717 §2.4)."""

from __future__ import annotations

import torch

from affectlens.steering.operators.operator import Operator, PerEmotion


def _less(strengths: PerEmotion, lengths: PerEmotion) -> tuple[PerEmotion, PerEmotion]:
    return -strengths, torch.zeros_like(lengths)


PROJECT_OUT = Operator(
    "project_out", "Take a share of the emotion away, 1 for all of it", projects=_less, share=2.0
)
