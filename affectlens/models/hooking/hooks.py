"""Reading and writing inside a forward pass, with plain forward hooks.

Every hook has a handle and is removed when its block ends, also on exceptions. Writers run before
readers whatever order they were opened in, so a reader sees what was written. A hook that does not
run in a forward pass is an error; see `affectlens.models.hooking.required`.

Hooks see passes of the block that opened them, never those of other threads, nor of copies of the
model (`scopes`); inside, nothing compiled runs (`compiled`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import local
from typing import Any, Literal

from torch import Tensor, nn

from affectlens.core.errors import unknown
from affectlens.core.places import KINDS, Site, WritePoint
from affectlens.models.anatomy.anatomy import Anatomy, BlockParts
from affectlens.models.anatomy.levels import missing
from affectlens.models.anatomy.transformer_lens import unwrap
from affectlens.models.hooking.attention_patterns import watching_attention
from affectlens.models.hooking.compiled import running_eagerly
from affectlens.models.hooking.required import required_hooks
from affectlens.models.hooking.scopes import Scope, opened, owned
from affectlens.models.hooking.values import first_input, first_output, input_name, replaced
from affectlens.models.step import accepted

Reader = Callable[[Site, Tensor], None]
"""Called with a site and its value in this forward pass, ``[batch, pos, width]``, not a copy.

Attention patterns come as ``[batch, head, query, key]``, padding included.
"""

Writer = Callable[[Tensor], Tensor | None]
"""Given the value ``[batch, pos, width]``, returns the one to use instead, or None to keep it."""


_ALL_POSITIONS: dict[str, Any] = {"logits_to_keep": 0}


class StopForward(Exception):
    """Ends a forward pass after the last site that was asked for."""


@dataclass(frozen=True, eq=False)
class Tap:
    """Where a value is read.

    Attributes:
        module: The module.
        side: Whether it is its ``"input"`` or its ``"output"``.
        scale: What it is multiplied by.
    """

    module: nn.Module
    side: Literal["input", "output"]
    scale: float = 1.0


def taps(anatomy: Anatomy, site: Site) -> tuple[Tap, ...]:
    """Where a site is read: its value is the sum of what is there, in the order of the pass.

    Raises:
        UnknownNameError: If the layer does not exist, the site is no tensor of the model
            (``pattern``), or the block has no such site; the message says why and where there is
            one.
    """
    part, place = _block_of(anatomy, site.layer), site.place
    if place.side is None:
        raise unknown("site", site.kind, KINDS)
    for name in place.modules:
        found: Any = getattr(part, name)
        if isinstance(found, nn.Module):
            return (Tap(found, place.side),)
        if found:
            return tuple(Tap(term.module, place.side, term.scale) for term in found)
    raise missing(anatomy, site)


def check_sites(anatomy: Anatomy, sites: Sequence[Site]) -> None:
    """Refuse sites that the model does not have.

    Raises:
        UnknownNameError: If there is one; see :func:`taps`.
    """
    for site in sites:
        part = _block_of(anatomy, site.layer)
        if site.kind != "pattern":
            taps(anatomy, site)
        elif part.n_heads == 0:
            raise missing(anatomy, site)


@contextmanager
def reading(
    anatomy: Anatomy,
    sites: Sequence[Site],
    read: Reader,
    *,
    stop_after: Site | None = None,
) -> Generator[None, None, None]:
    """Call ``read`` with the value of each site in every forward pass inside the block.

    Args:
        anatomy: The model.
        sites: What to read. ``attn_out`` and ``mlp_out`` are what is added to the residual, so
            after a post-norm. ``pattern`` is computed beside the model's own attention.
        read: Gets the live tensor; copy what must outlive the pass.
        stop_after: One of ``sites``, normally the deepest of them. The pass ends once it has been
            read: the model call raises `StopForward`, which this block catches, so let the call
            be the last statement in it.

    Raises:
        UnknownNameError: If a layer does not exist, or has no such site; see :func:`taps`.
        ModelError: At the end of a forward pass that did not come to one of the sites.
    """
    if stop_after is not None and stop_after not in sites:
        raise unknown("site", stop_after.hook_name, [site.hook_name for site in sites])
    stop = StopForward()

    def seen_at(site: Site) -> Callable[[Tensor], None]:
        def seen(value: Tensor) -> None:
            read(site, value)
            if site == stop_after:
                raise stop

        return seen

    def inside(scope: Scope, seen: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
        return lambda value: seen(value) if scope() else None

    attention: dict[nn.Module, Callable[[Tensor], None]] = {}
    with opened() as (scope, stack):
        stack.enter_context(running_eagerly())
        must = required_hooks(anatomy, scope, stack)
        hooks = _Hooks(anatomy, scope, stack)
        for site in sites:
            seen = must(site.hook_name, seen_at(site))
            if site.kind != "pattern":
                hooks.read(site, seen)
                continue
            attn: Any = _block_of(anatomy, site.layer).attn
            if unwrap(attn) is attn:  # attention is watched for the whole process
                attention[attn] = inside(scope, seen)
            else:  # a TransformerBridge computes its attention itself, and shows the weights
                hooks.after(attn.hook_pattern, _output_to(seen))
        if attention:
            stack.enter_context(watching_attention(attention))
        try:
            yield
        except StopForward as stopped:
            if stopped is not stop:
                raise
            # Its frames hold the tensors of the pass, and the hooks among them hold it.
            stop.__traceback__ = None
            must.check()


@contextmanager
def writing(anatomy: Anatomy, writers: Mapping[WritePoint, Writer]) -> Generator[None, None, None]:
    """Let each writer change its place in every forward pass inside the block.

    Args:
        anatomy: The model.
        writers: Place to function. Blocks may be nested; the inner one runs first.

    Raises:
        UnknownNameError: If a layer does not exist, or has no such place.
        ModelError: At the end of a forward pass that did not come to one of the places.
    """
    with opened() as (scope, stack):
        stack.enter_context(running_eagerly())
        hook_writers(anatomy, writers, scope, stack)
        yield


def hook_writers(
    anatomy: Anatomy, writers: Mapping[WritePoint, Writer], scope: Scope, held: ExitStack
) -> None:
    """Hook writers for as long as something is held; see :func:`writing`.

    Args:
        anatomy: The model.
        writers: Place to function.
        scope: Whose passes they change.
        held: Removes the hooks when it is closed.

    Raises:
        UnknownNameError: If a layer does not exist, or has no such place.
    """
    must = required_hooks(anatomy, scope, held)
    hooks = _Hooks(anatomy, scope, held)
    for place in writers:
        written_module(anatomy, place)
    for place, write in writers.items():
        hooks.write(place, must(f"{place.point} of block {place.layer}", write))


class _Hooks:
    """Sets hooks for a scope."""

    def __init__(self, anatomy: Anatomy, scope: Scope, held: ExitStack) -> None:
        self._anatomy, self._scope, self._held = anatomy, scope, held
        self._shapes = local()  # batch and position of a thread's pass
        self._noted: set[int] = set()
        if accepted(anatomy.base, **_ALL_POSITIONS):
            self.before(anatomy.base, _every_position)

    def before(self, module: nn.Module, hook: Callable[..., Any], *, prepend: bool = False) -> None:
        """Hook the input of a module."""
        hook = owned(module, self._scope, hook)
        handle = module.register_forward_pre_hook(hook, with_kwargs=True, prepend=prepend)
        self._held.callback(handle.remove)

    def after(self, module: nn.Module, hook: Callable[..., Any], *, prepend: bool = False) -> None:
        """Hook the output of a module."""
        hook = owned(module, self._scope, hook)
        self._held.callback(module.register_forward_hook(hook, prepend=prepend).remove)

    def read(self, site: Site, seen: Callable[[Tensor], None]) -> None:
        """Read a site."""
        found = taps(self._anatomy, site)
        whole = self._whole(_block_of(self._anatomy, site.layer))
        tap, *more = found
        if more:
            self._read_sum(found, lambda value: seen(whole(value)))
            return

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen(whole(first_input(args, kwargs)))

        if tap.side == "input":
            self.before(tap.module, before)
        elif tap.scale == 1:
            self.after(tap.module, _output_to(lambda value: seen(whole(value))))
        else:
            self.after(tap.module, _output_to(lambda value: seen(whole(value) * tap.scale)))

    def _read_sum(self, found: Sequence[Tap], seen: Callable[[Tensor], None]) -> None:
        """Read what several modules add; the last of them completes it."""
        so_far = local()

        def adds(position: int) -> Callable[[Tensor], None]:
            def add(value: Tensor) -> None:
                value = value * found[position].scale
                if position:
                    before = so_far.value
                    value = before + value.reshape(before.shape)
                so_far.value = value
                if position == len(found) - 1:
                    del so_far.value
                    seen(value)

            return add

        for position, tap in enumerate(found):
            self.after(tap.module, _output_to(adds(position)))

    def write(self, place: WritePoint, write: Writer) -> None:
        """Write at a place."""
        part = _block_of(self._anatomy, place.layer)
        whole = self._whole(part)

        def changed(value: Tensor) -> Tensor | None:
            new = write(whole(value))
            return None if new is None else new.reshape(value.shape)

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            new = changed(first_input(args, kwargs))
            if new is None:
                return None
            if args:
                return (new, *args[1:]), kwargs
            return args, {**kwargs, input_name(kwargs): new}

        def after(_module: nn.Module, _args: Any, output: Any) -> Any:
            new = changed(first_output(output))
            if new is None:
                return None
            return replaced(output, new)

        module = written_module(self._anatomy, place)
        if place.place.side == "input":
            self.before(module, before, prepend=True)
        else:
            self.after(module, after, prepend=True)

    def _whole(self, part: BlockParts) -> Callable[[Tensor], Tensor]:
        """What gives a value back its ``[batch, pos, width]``: some blocks make one axis of two."""
        if not part.flat:
            return lambda value: value

        def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._shapes.now = tuple(first_input(args, kwargs).shape[:-1])

        if part.layer not in self._noted:
            self._noted.add(part.layer)
            self.before(part.block, note)
        return lambda value: value.unflatten(0, self._shapes.now) if value.ndim == 2 else value


def _every_position(
    _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Blocks without keys of their own (Gemma 4 E2B, Transformers 5.23) run only the positions
    whose logits are wanted, unless all are."""
    return args, {**kwargs, **_ALL_POSITIONS}


def _block_of(anatomy: Anatomy, layer: int) -> BlockParts:
    if not 0 <= layer < anatomy.n_layers:
        raise unknown("layer", layer, [str(i) for i in range(anatomy.n_layers)])
    return anatomy.blocks[layer]


def written_module(anatomy: Anatomy, place: WritePoint) -> nn.Module:
    """The module whose input or output is changed at a place.

    Raises:
        UnknownNameError: If the layer does not exist, or has no such place.
    """
    part = _block_of(anatomy, place.layer)
    found = (getattr(part, name) for name in place.place.modules)
    module = next((module for module in found if module is not None), None)
    if module is None:
        raise missing(anatomy, place)
    return module


def _output_to(seen: Callable[[Tensor], None]) -> Callable[..., None]:
    def after(_module: nn.Module, _args: Any, output: Any) -> None:
        seen(first_output(output))

    return after
