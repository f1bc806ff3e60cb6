"""Single heads that read another stream than the rest of their attention.

Queries, keys and values come out of shared maps, fused in some families, grouped in others. So the
attention is run a second time on what the head reads, and the head's slice of the result takes its
place before ``W_O``: exact in every family, at the price of one attention per head. Where the three
maps are modules of their own, a head may read otherwise through one of them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from affectlens.circuits.interventions.intervening import heads as place_of
from affectlens.circuits.interventions.receivers import Read, Reading, Receiver, reading_of
from affectlens.core.errors import DataError, ModelError, unknown
from affectlens.core.places import WritePoint
from affectlens.models.anatomy.transformer_lens import unwrap
from affectlens.models.hooking.compiled import running_eagerly
from affectlens.models.hooking.hooks import Writer, writing
from affectlens.models.hooking.required import required_hooks
from affectlens.models.hooking.scopes import opened, owned
from affectlens.models.hooking.values import first_input, first_output, input_name
from affectlens.models.step import CACHES

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel


WAYS: tuple[str, ...] = ("q", "k", "v")
"""By which a head reads the stream."""
TOGETHER = "qkv"


@dataclass(frozen=True, order=True)
class HeadReceiver:
    """One head as a reader of the stream.

    Attributes:
        layer: Its block.
        head: Which.
        by: ``"q"``, ``"k"`` or ``"v"`` alone, or ``"qkv"``.
    """

    layer: int
    head: int
    by: str = TOGETHER

    def __post_init__(self) -> None:
        if self.by not in (*WAYS, TOGETHER):
            raise unknown("way of a head to read", self.by, (*WAYS, TOGETHER))

    @property
    def name(self) -> str:
        """For example ``head 3.7``, ``head 3.7 q``."""
        return f"head {self.layer}.{self.head}" + (f" {self.by}" if self.by != TOGETHER else "")


class _Caught(Exception):
    """Ends the second run of an attention, once its heads are known."""


@contextmanager
def heads_reading_otherwise(
    model: LanguageModel,
    readings: Mapping[Receiver, Reading],
    reads: Mapping[HeadReceiver, Read],
) -> Generator[None, None, None]:
    """Let single heads read something else than the stream, in every pass inside the block.

    Args:
        model: The model.
        readings: Of `receivers`.
        reads: What a head of an attention reads instead.

    Raises:
        UnknownNameError: If there is no such head.
        DataError: In a pass that goes on from a cache; or if a head reads otherwise by all three
            ways together and by one of them too.
        ModelError: If one way alone is asked of a family that makes queries, keys and values by
            one map.
    """
    per_layer: dict[Receiver, dict[int, dict[str, Read]]] = {}
    for one, read in reads.items():
        by_way = per_layer.setdefault(Receiver(one.layer, "attn"), {}).setdefault(one.head, {})
        by_way[one.by] = read
        if TOGETHER in by_way and len(by_way) > 1:
            raise DataError(
                f"Head {one.layer}.{one.head} cannot read otherwise as a whole and by one of its "
                "ways; name queries, keys and values apart."
            )
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
            hooks = [(stream_of, again.stream, True), (attn, call, False)]
            ways = {by for of in by_head.values() for by in of} - {TOGETHER}
            maps = _maps(model, receiver.layer) if ways else {}
            hooks += [(module, again.through(by), False) for by, module in maps.items()]
            for module, hook, first in hooks:
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
        self._inputs: dict[str, Tensor] = {}
        self._catching = False

    def stream(self, _module: nn.Module, args: Any, kwargs: Any) -> None:
        """Hook where the stream is seen."""
        if not self._catching:
            self._stream = first_input(args, kwargs)

    def through(self, by: str) -> Callable[..., Any]:
        """Hook before the map of one way: in a second run, what this way reads."""

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not self._catching or by not in self._inputs:
                return None
            new = self._inputs[by].reshape(first_input(args, kwargs).shape)
            return (
                ((new, *args[1:]), kwargs) if args else (args, {**kwargs, input_name(kwargs): new})
            )

        return hook

    def call(
        self, reading: Reading, reads: Mapping[int, Mapping[str, Read]]
    ) -> Callable[..., None]:
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
            for head, by_way in reads.items():
                made = dict[str, Tensor]()
                for by, read in by_way.items():
                    new = read(stream)
                    new = new if through is None else first_output(through.forward(new))
                    made[by] = new.reshape(own.shape)
                new, self._inputs = made.pop(TOGETHER, own), made
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


def _maps(model: LanguageModel, layer: int) -> dict[str, nn.Module]:
    """The modules that make queries, keys and values.

    Raises:
        ModelError: If they are not three.
    """
    attn = unwrap(model.anatomy.blocks[layer].attn)
    found = {by: getattr(attn, f"{by}_proj", None) for by in WAYS}
    if not all(isinstance(module, nn.Module) for module in found.values()):
        raise ModelError(
            f"{type(attn).__name__} makes queries, keys and values by one map, so a head cannot "
            "read otherwise through one of them alone; take heads whole."
        )
    return {by: module for by, module in found.items() if module is not None}


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
