"""Reading and writing inside a forward pass, with plain forward hooks.

Every hook has a handle and is removed when its block ends, also on exceptions. Writers run before
readers whatever order they were opened in, so a reader sees what was written. A hook that does not
run in a forward pass is an error; see `affectlens.models.required`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import local
from typing import Any

from torch import Tensor, nn

from affectlens.core.errors import UnknownNameError, unknown
from affectlens.core.sites import KINDS, Site
from affectlens.models._transformer_lens import unwrap
from affectlens.models.anatomy import Anatomy, BlockParts
from affectlens.models.patterns import watching_attention
from affectlens.models.required import required_hooks

Reader = Callable[[Site, Tensor], None]
"""Called with a site and its value in this forward pass, ``[batch, pos, width]``, not a copy.

Attention patterns come as ``[batch, head, query, key]``, padding included.
"""

Writer = Callable[[Tensor], Tensor | None]
"""Given the value ``[batch, pos, width]``, returns the one to use instead, or None to keep it."""

POINTS: tuple[str, ...] = (
    "resid_pre",
    "o_proj_in",
    "o_proj_out",
    "down_proj_in",
    "down_proj_out",
    "resid_post",
)
"""Where one can write, in the order of a block.

``o_proj_out`` and ``down_proj_out`` come before a norm that the family may have between a sublayer
and the residual, so that writing ``Δ`` at an input equals writing ``W·Δ`` at the output.
"""

_ORDER = ("resid_pre", "pattern", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post")


class StopForward(Exception):
    """Ends a forward pass after the last site that was asked for."""


@dataclass(frozen=True, order=True)
class WritePoint:
    """One place of one block where values can be changed.

    Attributes:
        layer: Block index, from 0.
        point: One of :data:`POINTS`.
    """

    layer: int
    point: str

    def __post_init__(self) -> None:
        if self.point not in POINTS:
            raise unknown("write point", self.point, POINTS)


def in_order(sites: Sequence[Site]) -> list[Site]:
    """Sites in the order in which a forward pass comes to them."""
    return sorted(sites, key=lambda site: (site.layer, _ORDER.index(site.kind)))


def deepest(sites: Sequence[Site]) -> Site:
    """The site a forward pass reaches last; pass it as ``stop_after`` to skip what follows."""
    return in_order(sites)[-1]


def tap(anatomy: Anatomy, site: Site) -> tuple[nn.Module, str]:
    """Where a site is read: a module, and which of its ``"input"`` or ``"output"`` it is.

    Raises:
        UnknownNameError: If the layer does not exist, the site is no tensor of the model
            (``pattern``), or ``resid_mid`` is asked of a family whose attention and MLP run in
            parallel.
    """
    part = _block_of(anatomy, site.layer)
    match site.kind:
        case "resid_pre":
            return part.block, "input"
        case "resid_post":
            return part.block, "output"
        case "attn_out":
            norm = part.attn_post_norm
            return (part.o_proj if norm is None else norm), "output"
        case "mlp_out":
            norm = part.mlp_post_norm
            return (part.down_proj if norm is None else norm), "output"
        case "z":
            return part.o_proj, "input"
        case "mlp_post":
            return part.down_proj, "input"
        case "resid_mid" if part.mid_reader is not None:
            return part.mid_reader, "input"
        case "resid_mid":
            raise UnknownNameError(
                f"There is no {site.hook_name}: in this family attention and MLP read the same "
                "residual (parallel blocks); read resid_pre, attn_out, mlp_out or resid_post."
            )
        case _:
            raise unknown("site", site.kind, KINDS)


def check_sites(anatomy: Anatomy, sites: Sequence[Site]) -> None:
    """Refuse sites that the model does not have.

    Raises:
        UnknownNameError: If there is one; see :func:`tap`.
    """
    for site in sites:
        _block_of(anatomy, site.layer)
        if site.kind != "pattern":
            tap(anatomy, site)


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
        stop_after: One of ``sites``, normally :func:`deepest`. The pass ends once it has been
            read: the model call raises `StopForward`, which this block catches, so let the call
            be the last statement in it.

    Raises:
        UnknownNameError: If a layer does not exist, or ``resid_mid`` is asked of a family whose
            attention and MLP run in parallel.
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

    attention: dict[nn.Module, Callable[[Tensor], None]] = {}
    with ExitStack() as stack:
        must = stack.enter_context(required_hooks(anatomy))
        shapes = stack.enter_context(_shapes(anatomy, [site.layer for site in sites]))
        for site in sites:
            seen = must(site.hook_name, seen_at(site))
            if site.kind != "pattern":
                handle = _read_at(anatomy, site, seen, shapes)
                stack.callback(handle.remove)
                continue
            attn: Any = _block_of(anatomy, site.layer).attn
            if unwrap(attn) is attn:
                attention[attn] = seen
            else:  # a TransformerBridge computes its attention itself, and shows the weights
                handle = attn.hook_pattern.register_forward_hook(_output_to(seen))
                stack.callback(handle.remove)
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
        UnknownNameError: If a layer does not exist.
        ModelError: At the end of a forward pass that did not come to one of the places.
    """
    with ExitStack() as stack:
        must = stack.enter_context(required_hooks(anatomy))
        shapes = stack.enter_context(_shapes(anatomy, [place.layer for place in writers]))
        for place, write in writers.items():
            part = _block_of(anatomy, place.layer)
            counted = must(f"{place.point} of block {place.layer}", write)
            handle = _write_at(part, place.point, counted, shapes)
            stack.callback(handle.remove)
        yield


class _Shapes:
    """Batch and position of the running pass, for blocks that make one axis of the two."""

    def __init__(self) -> None:
        self._now = local()  # several threads may run one model

    def note(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Hook before a block."""
        self._now.shape = tuple(_first_input(args, kwargs).shape[:-1])

    def whole(self, value: Tensor) -> Tensor:
        """``[batch, pos, width]``, whatever the block made of it."""
        return value.unflatten(0, self._now.shape) if value.ndim == 2 else value


@contextmanager
def _shapes(anatomy: Anatomy, layers: Sequence[int]) -> Generator[_Shapes, None, None]:
    shapes = _Shapes()
    with ExitStack() as stack:
        for part in {layer: _block_of(anatomy, layer) for layer in layers}.values():
            if part.flat:
                hook = part.block.register_forward_pre_hook(shapes.note, with_kwargs=True)
                stack.callback(hook.remove)
        yield shapes


def _block_of(anatomy: Anatomy, layer: int) -> BlockParts:
    if not 0 <= layer < anatomy.n_layers:
        raise unknown("layer", layer, [str(i) for i in range(anatomy.n_layers)])
    return anatomy.blocks[layer]


def _read_at(anatomy: Anatomy, site: Site, seen: Callable[[Tensor], None], shapes: _Shapes) -> Any:
    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        whole(_first_input(args, kwargs))

    module, side = tap(anatomy, site)
    flat = anatomy.blocks[site.layer].flat

    def whole(value: Tensor) -> None:
        seen(shapes.whole(value) if flat else value)

    if side == "input":
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(_output_to(whole))


def _write_at(part: BlockParts, point: str, write: Writer, shapes: _Shapes) -> Any:
    def changed(value: Tensor) -> Tensor | None:
        if not part.flat:
            return write(value)
        new = write(shapes.whole(value))
        return None if new is None else new.reshape(value.shape)

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        new = changed(_first_input(args, kwargs))
        if new is None:
            return None
        if args:
            return (new, *args[1:]), kwargs
        return args, {**kwargs, _input_name(kwargs): new}

    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        new = changed(_first_output(output))
        if new is None:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    if point == "resid_pre":
        return part.block.register_forward_pre_hook(before, with_kwargs=True, prepend=True)
    if point == "resid_post":
        return part.block.register_forward_hook(after, prepend=True)
    module = part.o_proj if point.startswith("o_proj") else part.down_proj
    if point.endswith("_in"):
        return module.register_forward_pre_hook(before, with_kwargs=True, prepend=True)
    return module.register_forward_hook(after, prepend=True)


def _output_to(seen: Callable[[Tensor], None]) -> Callable[..., None]:
    def after(_module: nn.Module, _args: Any, output: Any) -> None:
        seen(_first_output(output))

    return after


def _first_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The hidden states a module was called with, by position or by name."""
    return args[0] if args else kwargs[_input_name(kwargs)]


def _input_name(kwargs: Mapping[str, Any]) -> str:
    return "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))


def _first_output(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
