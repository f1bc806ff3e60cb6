"""Passes that begin in the middle of the model, where what is changed begins.

Conditions that change nothing below a block share everything below it. So those blocks are not run
again: the pass of the unchanged model is remembered at the block's input, and put there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.models.hooking.compiled import running_eagerly
from affectlens.models.hooking.scopes import opened, owned
from affectlens.models.hooking.values import first_input, replaced

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel


class Seen:
    """What the blocks were given and gave in one pass of the unchanged model."""

    def __init__(self) -> None:
        self.inputs: dict[int, Float[Tensor, "batch pos d_model"]] = {}
        self.outputs: dict[int, Any] = {}


@contextmanager
def watching(model: LanguageModel, layers: Sequence[int]) -> Generator[Seen, None, None]:
    """Remember the inputs of some blocks, and the form of what each gives."""
    seen = Seen()

    def before(layer: int) -> Callable[..., None]:
        def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.inputs[layer] = first_input(args, kwargs).detach()

        return note

    def after(layer: int) -> Callable[..., None]:
        def note(_module: nn.Module, _args: Any, output: Any) -> None:
            seen.outputs[layer] = output

        return note

    with opened() as (scope, held):
        held.enter_context(running_eagerly())
        for part in model.anatomy.blocks:
            hook = owned(part.block, scope, after(part.layer))
            held.callback(part.block.register_forward_hook(hook).remove)
            if part.layer in layers:
                hook = owned(part.block, scope, before(part.layer))
                handle = part.block.register_forward_pre_hook(hook, with_kwargs=True)
                held.callback(handle.remove)
        yield seen


@contextmanager
def beginning_at(
    model: LanguageModel,
    layer: int,
    hidden: Float[Tensor, "batch pos d_model"],
    outputs: Mapping[int, Any],
) -> Generator[None, None, None]:
    """Blocks below a layer are passed over in this thread; its input is what was remembered.

    Their keys and values are not made either: the caller's cache must have those it needs.

    Args:
        model: The model.
        layer: The first block that runs; 0 changes nothing.
        hidden: Its input.
        outputs: Of every block passed over, anything it once gave, for its form.
    """
    with opened() as (scope, held):
        held.enter_context(running_eagerly())
        for part in model.anatomy.blocks[:layer]:
            block, own = part.block, vars(part.block).get("forward")
            usual = block.forward

            def instead(*args: Any, usual: Any = usual, at: int = part.layer, **kwargs: Any) -> Any:
                if not scope():
                    return usual(*args, **kwargs)
                new = hidden if at == layer - 1 else first_input(args, kwargs)
                return replaced(outputs[at], new)

            def undo(block: nn.Module = block, own: Any = own) -> None:
                if own is None:
                    del block.forward
                else:
                    block.forward = own

            block.forward = instead
            held.callback(undo)
        yield


def lowest(masks: Mapping[str, Tensor]) -> Tensor:
    """The first layer in which each condition changes anything; the number of layers if none.

    Args:
        masks: By kind of unit, ``[condition, layer, unit]``.
    """
    touched = torch.stack([mask.any(-1) for mask in masks.values()]).any(0)
    layers = torch.arange(touched.shape[1]).expand_as(touched)
    return layers.masked_fill(~touched, touched.shape[1]).min(1).values
