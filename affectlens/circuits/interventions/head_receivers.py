"""Single heads that read another stream than the rest of their attention.

Queries, keys and values come out of shared maps, fused in some families, grouped in others. So the
attention is run a second time on what the head reads, and the head's slice of the result takes its
place before ``W_O``: exact in every family, at the price of one attention per head.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from affectlens.circuits.interventions.intervening import heads as place_of
from affectlens.circuits.interventions.receivers import Read, Reading, Receiver, reading_of
from affectlens.core.errors import DataError
from affectlens.core.places import WritePoint
from affectlens.models.hooking.compiled import running_eagerly
from affectlens.models.hooking.hooks import Writer, writing
from affectlens.models.hooking.required import required_hooks
from affectlens.models.hooking.scopes import opened, owned
from affectlens.models.hooking.values import first_input, first_output, input_name
from affectlens.models.step import CACHES

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel


class _Caught(Exception):
    """Ends the second run of an attention, once its heads are known."""


@contextmanager
def heads_reading_otherwise(
    model: LanguageModel,
    readings: Mapping[Receiver, Reading],
    reads: Mapping[tuple[Receiver, int], Read],
) -> Generator[None, None, None]:
    """Let single heads read something else than the stream, in every pass inside the block.

    Args:
        model: The model.
        readings: Of `receivers`.
        reads: What a head of an attention reads instead.

    Raises:
        UnknownNameError: If there is no such head.
        DataError: In a pass that goes on from a cache.
    """
    per_layer: dict[Receiver, dict[int, Read]] = {}
    for (receiver, head), read in reads.items():
        per_layer.setdefault(receiver, {})[head] = read
    with opened() as (scope, held):
        held.enter_context(running_eagerly())
        must = required_hooks(model.anatomy, scope, held)
        writers: dict[WritePoint, Writer] = {}
        for receiver, by_head in per_layer.items():
            at, _ = place_of(model, receiver.layer, sorted(by_head))
            reading, again = reading_of(readings, receiver), _Again(model, receiver)
            stream_of = reading.block or reading.module
            attn = model.anatomy.blocks[receiver.layer].attn
            assert attn is not None  # it is a receiver
            call = must(receiver.name, again.call(reading, by_head))
            for module, hook, first in ((stream_of, again.stream, True), (attn, call, False)):
                handle = module.register_forward_pre_hook(
                    owned(module, scope, hook), with_kwargs=True, prepend=first
                )
                held.callback(handle.remove)
            writers[at] = again.write
        held.enter_context(writing(model.anatomy, writers))
        yield


class _Again:
    """The second runs of one attention."""

    def __init__(self, model: LanguageModel, receiver: Receiver) -> None:
        part = model.anatomy.blocks[receiver.layer]
        self._d_head, self._layer = part.d_head, receiver.layer
        self._stream: Tensor | None = None
        self._found: dict[int, Tensor] = {}
        self._catching = False

    def stream(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        """Hook where the stream is seen."""
        if not self._catching:
            self._stream = first_input(args, kwargs)

    def call(self, reading: Reading, reads: Mapping[int, Read]) -> Callable[..., None]:
        """Hook before the attention: what its heads would be, given what they read."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._catching:
                return
            stream, own = self._stream, first_input(args, kwargs)
            assert stream is not None  # its hook comes first
            through = reading.norm if reading.block is not None else _norm(reading, module)
            options = {
                name: value
                for name, value in kwargs.items()
                if not _cache(name, value, self._layer)
            }
            for head, read in reads.items():
                new = read(stream)
                new = new if through is None else first_output(through.forward(new))
                new = new.reshape(own.shape)
                given, named = (
                    ((new, *args[1:]), options)
                    if args
                    else (args, {**options, input_name(kwargs): new})
                )
                self._found[head] = self._z(module, given, named)

        return hook

    def write(self, value: Tensor) -> Tensor | None:
        """At the input of ``W_O``: the second run's result, or the heads' new values."""
        if self._catching:
            self._found[-1] = value
            raise _Caught
        value = value.clone()
        for head, z in self._found.items():
            own = slice(head * self._d_head, (head + 1) * self._d_head)
            value[..., own] = z[..., own].reshape(value[..., own].shape)
        self._found = {}
        return value

    def _z(self, module: nn.Module, args: Any, kwargs: Any) -> Tensor:
        self._catching = True
        try:
            module.forward(*args, **kwargs)
        except _Caught:
            return self._found.pop(-1)
        finally:
            self._catching = False
        raise AssertionError("an attention with heads runs its output projection")


def _norm(reading: Reading, attn: nn.Module) -> nn.Module | None:
    """The norm whose input is changed for the whole attention; None if that is the attention."""
    return None if reading.module is attn else reading.module


def _cache(name: str, value: Any, layer: int) -> bool:
    """Whether an argument is a cache, which a second run must not touch.

    Raises:
        DataError: If it holds earlier tokens.
    """
    if name not in (*CACHES, "past_key_value", "layer_past"):
        return False
    length = getattr(value, "get_seq_length", None)
    if length is not None and int(length(layer)) > 0:
        raise DataError("Edges into heads need texts that run whole, without a cache.")
    return True
