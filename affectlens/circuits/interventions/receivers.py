"""Who reads the residual stream: attention and MLP of each block, and the unembedding.

To change what one of them reads and nothing else, the change must come after the stream has gone
on. Most blocks have a norm that one sublayer alone reads through: there it is made at the norm's
input. Where two sublayers share a norm (GPT-J, Falcon), or none is there (OLMo 2), it is made at
the sublayer's own input, by norming the changed stream anew.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.core.errors import DataError, ModelError, unknown
from affectlens.models.anatomy.transformer_lens import unwrap
from affectlens.models.hooking.compiled import running_eagerly
from affectlens.models.hooking.required import required_hooks
from affectlens.models.hooking.scopes import opened, owned
from affectlens.models.hooking.values import first_input, first_output, input_name

if TYPE_CHECKING:
    from affectlens.models.anatomy.anatomy import BlockParts
    from affectlens.models.loading import LanguageModel

PARTS: tuple[str, ...] = ("attn", "mlp", "final")
"""What reads the stream; ``final`` is the norm before the unembedding."""

Read = Callable[[Float[Tensor, "batch pos d_model"]], Float[Tensor, "batch pos d_model"]]
"""What a receiver reads instead, given the stream."""


@dataclass(frozen=True, order=True)
class Receiver:
    """One reader of the stream.

    Attributes:
        layer: Its block; the number of blocks for ``final``.
        part: One of :data:`PARTS`.
    """

    layer: int
    part: str

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            raise unknown("receiver", self.part, PARTS)

    @property
    def name(self) -> str:
        """For example ``attn 3``, ``mlp 3``, ``unembedding``."""
        return "unembedding" if self.part == "final" else f"{self.part} {self.layer}"


@dataclass(frozen=True, eq=False)
class Reading:
    """Where a receiver takes the stream from.

    Attributes:
        module: Whose input is changed.
        norm: Through which the changed stream goes first; None if the module reads it as it is.
        block: Whose input the stream is; None where it is the module's own input.
    """

    module: nn.Module
    norm: nn.Module | None = None
    block: nn.Module | None = None


def receivers(model: LanguageModel) -> dict[Receiver, Reading]:
    """All readers of the stream, in the order of the pass.

    Raises:
        ModelError: If what a sublayer reads is neither the stream nor a norm of it, or the stream
            is more than the sum of what is written to it.
    """
    _require_sums(model)
    seen = _watch(model)
    found: dict[Receiver, Reading] = {}
    for part in model.anatomy.blocks:
        block = seen[part.layer]
        if part.attn_adds and part.attn is not None:
            found[Receiver(part.layer, "attn")] = block.reading(part.attn, beside=part.mlp)
        if part.mlp_adds and part.mid_reader is not None:
            found[Receiver(part.layer, "mlp")] = Reading(part.mid_reader)
        elif part.mlp_adds and part.mlp is not None:
            found[Receiver(part.layer, "mlp")] = block.reading(part.mlp, beside=part.attn)
    found[Receiver(model.n_layers, "final")] = Reading(model.anatomy.final_norm)
    return found


@contextmanager
def reading_otherwise(
    model: LanguageModel, readings: Mapping[Receiver, Reading], reads: Mapping[Receiver, Read]
) -> Generator[None, None, None]:
    """Let some receivers read something else than the stream, in every pass inside the block.

    Args:
        model: The model.
        readings: Of `receivers`.
        reads: What each reads instead.

    Raises:
        DataError: If the model has no such receiver.
        ModelError: If a pass does not come to one of them.
    """
    with opened() as (scope, held):
        held.enter_context(running_eagerly())
        must = required_hooks(model.anatomy, scope, held)
        streams: dict[nn.Module, Tensor] = {}

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            streams[module] = first_input(args, kwargs)

        def before(reading: Reading, read: Read) -> Callable[..., Any]:
            def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                own = first_input(args, kwargs)
                stream = own if reading.block is None else streams[reading.block]
                new = read(stream).to(stream.dtype)
                if reading.norm is not None:
                    new = first_output(reading.norm.forward(new))
                new = new.reshape(own.shape)
                return (
                    ((new, *args[1:]), kwargs)
                    if args
                    else (args, {**kwargs, input_name(kwargs): new})
                )

            return hook

        for receiver, read in reads.items():
            reading = reading_of(readings, receiver)
            if reading.block is not None:
                handle = reading.block.register_forward_pre_hook(
                    owned(reading.block, scope, keep), with_kwargs=True
                )
                held.callback(handle.remove)
            counted = must(receiver.name, before(reading, read))
            handle = reading.module.register_forward_pre_hook(
                owned(reading.module, scope, counted), with_kwargs=True
            )
            held.callback(handle.remove)
        yield


def reading_of(readings: Mapping[Receiver, Reading], receiver: Receiver) -> Reading:
    """Of one receiver.

    Raises:
        DataError: If the model has no such receiver.
    """
    if receiver not in readings:
        raise DataError(
            f"This model has no receiver {receiver.part} at layer {receiver.layer}; there are "
            f"{len(readings)}, the last is {max(readings).part} at layer {max(readings).layer}."
        )
    return readings[receiver]


def _require_sums(model: LanguageModel) -> None:
    for part in model.anatomy.blocks:
        terms = [term for term in (*part.mid_sum, *part.post_sum) if term.module is None]
        if not part.post_sum or any(term.scale != 1 for term in terms):
            raise ModelError(
                f"In block {part.layer} of {model.name} the stream is not the plain sum of what is "
                "written to it, so it has no edges; patch nodes instead."
            )


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the modules of one block were called with in one pass, and what they gave."""

    part: BlockParts
    given: dict[nn.Module, Tensor]
    made: dict[nn.Module, Tensor]

    def reading(self, module: nn.Module, beside: nn.Module | None) -> Reading:
        """Where a sublayer takes the block's input from."""
        stream, own = self.given[self.part.block], self.given[module]
        if _same(own, stream):
            return Reading(module)
        for norm, output in self.made.items():
            if norm in (module, beside, self.part.block) or not _same(output, own):
                continue
            if not _same(self.given[norm], stream):
                continue
            shared = beside is not None and _same(self.given.get(beside), own)
            return Reading(module, norm, self.part.block) if shared else Reading(norm)
        raise ModelError(
            f"What {type(module).__name__} of block {self.part.layer} reads is no norm of the "
            "stream, so it cannot be changed alone; patch nodes instead."
        )


def _same(one: Tensor | None, other: Tensor) -> bool:
    return (
        one is not None
        and one.numel() == other.numel()
        and torch.equal(one.flatten(), other.flatten())
    )


@torch.no_grad()
def _watch(model: LanguageModel) -> list[_Seen]:
    seen = [_Seen(part, {}, {}) for part in model.anatomy.blocks]
    with opened() as (scope, held):
        held.enter_context(running_eagerly())
        for block in seen:
            for module in dict.fromkeys((*_inside(block.part.block), block.part.block)):

                def before(
                    called: nn.Module, args: Any, kwargs: Any, given: dict[Any, Any] = block.given
                ) -> None:
                    value = first_input(args, kwargs) if args or kwargs else None
                    if isinstance(value, Tensor):
                        given[called] = value.clone()

                def after(
                    called: nn.Module, _args: Any, output: Any, made: dict[Any, Any] = block.made
                ) -> None:
                    value = first_output(output)
                    if isinstance(value, Tensor):
                        made[called] = value.clone()

                pre = module.register_forward_pre_hook(
                    owned(module, scope, before), with_kwargs=True
                )
                held.callback(pre.remove)
                held.callback(module.register_forward_hook(owned(module, scope, after)).remove)
        # Tokens that any vocabulary has.
        model.anatomy.base(
            input_ids=torch.tensor([[2, 3, 1, 4]], device=model.device), use_cache=False
        )
    return seen


def _inside(block: nn.Module) -> list[nn.Module]:
    return list(unwrap(block).modules())
