"""Where vLLM's modules of a model compute what is steered, whichever runner runs them.

vLLM's decoder layers return the last sublayer's output and the residual apart, to be added by the
next norm; projections return their output and a bias. Hooks are put on after loading and before
the first compilation, which traces them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from affectlens.core import ModelError, WritePoint
from affectlens.serving.readings import Readings
from affectlens.serving.slot_tables import Slots
from affectlens.steering.gates import EMBEDDINGS, decided

_SUM_FIRST = ("StableLMEpochForCausalLM", "StablelmForCausalLM", "StableLmForCausalLM")
"""Families whose blocks return the sum and a residual that is part of it: not supported."""

_LAYERS = ("model.layers", "transformer.h", "gpt_neox.layers", "language_model.model.layers")
_O_PROJ = ("self_attn.o_proj", "attn.c_proj", "attention.dense", "self_attn.dense")
_DOWN_PROJ = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2")


@dataclass(frozen=True, eq=False)
class Block:
    """One decoder layer of this worker.

    Attributes:
        layer: Its number in the whole model.
        parts: The modules whose outputs are steered, by point.
    """

    layer: int
    parts: Mapping[str, nn.Module]


def find_blocks(model: Any) -> tuple[Block, ...]:
    """The decoder layers that this worker holds.

    Raises:
        ModelError: If the family is not understood, naming it.
    """
    family = type(model).__name__
    layers = _first(model, _LAYERS)
    if family in _SUM_FIRST:
        raise ModelError(
            f"Steering does not support vLLM's {family}: its blocks return their residual twice."
        )
    if layers is None:
        raise ModelError(
            f"Steering does not know vLLM's {family}: it has none of {', '.join(_LAYERS)}."
        )
    blocks: list[Block] = []
    for number, layer in enumerate(layers):
        if type(layer).__name__ == "PPMissingLayer":  # another stage of the pipeline has it
            continue
        parts = {
            "o_proj_out": _first(layer, _O_PROJ),
            "down_proj_out": _first(layer, _DOWN_PROJ),
            "resid_post": layer,
        }
        missing = [name for name, part in parts.items() if part is None]
        if missing:
            raise ModelError(
                f"Steering does not know block {number} of vLLM's {family}: there is no "
                f"{missing[0].removesuffix('_out')} (a mixture of experts, for example)."
            )
        blocks.append(Block(number, parts))
    return tuple(blocks)


def install(blocks: Sequence[Block], slots: Slots, readings: Readings | None) -> None:
    """Steer and read in every forward pass from now on."""
    for block in blocks:
        if block.layer == 0 and readings is not None and EMBEDDINGS in readings.layers:
            before = _before(slots, readings)
            block.parts["resid_post"].register_forward_pre_hook(before, with_kwargs=True)
        for point, part in block.parts.items():
            place = WritePoint(block.layer, point)
            reads = point == "resid_post" and readings and block.layer in readings.layers
            if place not in slots.places and not reads:
                continue
            gated = readings is not None and any(decided(place, n) for n in readings.layers)
            part.register_forward_hook(
                _hook(slots, slots.places.get(place), gated, readings if reads else None,
                      readings.layers[block.layer] if readings and reads else 0)
            )  # fmt: skip


def _before(slots: Slots, readings: Readings) -> Any:
    """Decides the gates that read the embeddings."""
    index, width = readings.layers[EMBEDDINGS], slots.capacity.d_model

    def hook(_module: Any, args: Any, kwargs: Any) -> None:
        if not slots.always and not slots.busy:
            return
        # Positions come first in some families and last in others; only hidden states are so wide.
        hidden = next(
            value
            for value in (*args, *kwargs.values())
            if isinstance(value, Tensor)
            and value.is_floating_point()
            and value.shape[-1:] == (width,)
        )
        readings.decide_at(index, _tokens(hidden))

    return hook


def _hook(
    slots: Slots, index: int | None, gated: bool, readings: Readings | None, layer: int
) -> Any:
    def hook(_module: Any, _args: Any, output: Any) -> Any:
        if not slots.always and not slots.busy:  # code that runs anew skips what nobody asks for
            if readings is not None and readings.wanted:
                readings.read_at(layer, _stream(output))
            return output
        if readings is not None:
            readings.decide_at(layer, _stream(output))
        if index is not None:
            output = _steered(slots, index, gated, output)
        if readings is not None and (slots.always or readings.wanted):
            readings.read_at(layer, _stream(output))
        return output

    return hook


def _steered(slots: Slots, index: int, gated: bool, output: Any) -> Any:
    if not isinstance(output, tuple):
        flat = slots.apply_at(index, _tokens(output), gated=gated)
        return flat.view(output.shape)
    first, second, *rest = output
    if isinstance(second, Tensor) and second.shape == first.shape:
        both = slots.apply_to_sum(index, _tokens(first), _tokens(second), gated=gated)
        return (*(flat.view(first.shape) for flat in both), *rest)
    flat = slots.apply_at(index, _tokens(first), gated=gated)
    return (flat.view(first.shape), second, *rest)


def _stream(output: Any) -> Tensor:
    """The residual stream after a block."""
    if not isinstance(output, tuple):
        return _tokens(output)
    first, second = output[:2]
    return _tokens(first + second if isinstance(second, Tensor) else first)


def _tokens(hidden: Tensor) -> Tensor:
    """One row per token; families that run on Transformers' code have a batch axis of one."""
    return hidden.reshape(-1, hidden.shape[-1])


def _first(root: Any, paths: Sequence[str]) -> Any:
    for path in paths:
        found = root
        for name in path.split("."):
            found = getattr(found, name, None)
            if found is None:
                break
        if found is not None:
            return found
    return None
