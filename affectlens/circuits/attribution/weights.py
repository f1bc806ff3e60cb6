"""Weights as gradients want them: in float32, and without gradients of their own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from affectlens.models.linear_map import is_plain, unpacked

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

_HALF = (torch.bfloat16, torch.float16)


@contextmanager
def float32_gradients(model: LanguageModel) -> Generator[None, None, None]:
    """Widen 16-bit weights for the length of the block, and keep gradients off all weights.

    A small difference of large terms is what attributions are made of; in 16 bits little of it is
    left. The weights are what they were afterwards, bit for bit.

    Memory: a float32 copy of the weights, unless they are float32 already.
    """
    parameters: list[Any] = list(model.hf.parameters())
    before = [(parameter, parameter.data, parameter.requires_grad) for parameter in parameters]
    buffers: list[Any] = [b for b in model.hf.buffers() if b.dtype in _HALF]
    half = [(buffer, buffer.data) for buffer in buffers]
    with ExitStack() as stack:
        stack.enter_context(unpacked(model.hf))
        try:
            for parameter, data, _ in before:
                parameter.requires_grad_(False)
                if data.dtype in _HALF and is_plain(parameter):
                    parameter.data = data.float()
            for buffer, data in half:
                buffer.data = data.float()
            yield
        finally:
            for parameter, data, flag in before:
                parameter.data = data
                parameter.requires_grad_(flag)
            for buffer, data in half:
                buffer.data = data
