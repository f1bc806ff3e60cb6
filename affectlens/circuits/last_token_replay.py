"""Last-token replay: many edits of the last token for the price of one prefix.

An edit of the last token leaves every earlier token's keys and values alone. So the prefix runs
once with a cache, and the last token is recomputed with all edits as batch rows. Rows enter at the
layer that they edit: before it they would equal the unedited row.

Replays run in fp32 whatever the model's dtype (a block's weights are widened while it runs): an
edit of a hundredth of the residual is smaller than what bfloat16 rounds away on the way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from affectlens.core.errors import DataError, ModelError
from affectlens.core.places import KINDS, Site
from affectlens.models.hooking.compiled import running_eagerly
from affectlens.models.hooking.hooks import reading
from affectlens.models.hooking.scopes import Scope, opened, owned
from affectlens.models.hooking.values import first_output, replaced
from affectlens.models.linear_map import is_plain, unpacked
from affectlens.models.placement import device_of, loaded

if TYPE_CHECKING:
    from affectlens.models.anatomy.anatomy import Anatomy
    from affectlens.models.loading import LanguageModel


@contextmanager
def hooked(register: Callable[[Scope], Sequence[Any]]) -> Generator[None]:
    """Keep the hooks that `register` sets for the length of the block, whatever happens in it."""
    with opened() as (scope, held):
        held.enter_context(running_eagerly())
        for handle in register(scope):
            held.callback(handle.remove)
        yield


@dataclass(frozen=True, eq=False)
class BlockCall:
    """What a block was called with besides the hidden states.

    What one token is given over its whole prefix (mask, positions, rotary angles, biases of ALiBi)
    is the same for every row. Where a batch has it once per row, and along which axis, is told from
    the same call with two rows.

    Attributes:
        args: Positional arguments after the hidden states.
        kwargs: Named arguments.
        cache: The cache among them.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    cache: Any

    def replayed(
        self, two: BlockCall, cache: Any, rows: int, dtype: torch.dtype
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call for many rows, with another cache and in another precision.

        Args:
            two: The call as the model makes it for two rows.
            cache: What takes the place of the cache.
            rows: How many.
            dtype: Of masks, angles and biases.
        """

        def swapped(value: Any, double: Any) -> Any:
            return cache if value is self.cache else _many(value, double, rows, dtype)

        args = tuple(swapped(*pair) for pair in zip(self.args, two.args, strict=True))
        return args, {k: swapped(v, two.kwargs.get(k)) for k, v in self.kwargs.items()}


def _many(one: Any, two: Any, rows: int, dtype: torch.dtype) -> Any:
    """An argument for many rows, from that for one and for two."""
    if isinstance(one, (tuple, list)):
        pairs = zip(cast("tuple[Any, ...]", one), cast("tuple[Any, ...]", two), strict=True)
        return tuple(_many(a, b, rows, dtype) for a, b in pairs)
    if not isinstance(one, Tensor):
        return one
    if isinstance(two, Tensor) and one.ndim == two.ndim:
        for axis, (size, double) in enumerate(zip(one.shape, two.shape, strict=True)):
            if double == 2 * size:
                if size == 1:
                    one = one.expand(*one.shape[:axis], rows, *one.shape[axis + 1 :])
                else:  # rows and heads on one axis (Bloom), row by row
                    one = torch.cat([one] * rows, dim=axis)
    return one.to(dtype) if one.is_floating_point() else one


@dataclass(frozen=True, eq=False)
class LastToken:
    """One prompt, ready to have its last token recomputed.

    Attributes:
        model: The model it belongs to.
        cache: Keys and values of all tokens but the last (never changed).
        calls: Per layer how the model called the block for the last token, alone and in two rows.
        resid_pre: Per layer the block's input at the last token, as the model computed it.
        resid_mid: Per layer the residual after attention; of a parallel block, after the block.
        resid_post: Per layer the block's output.
    """

    model: LanguageModel
    cache: Any
    calls: list[tuple[BlockCall, BlockCall]]
    resid_pre: Float[Tensor, "layer d_model"]
    resid_mid: Float[Tensor, "layer d_model"]
    resid_post: Float[Tensor, "layer d_model"]

    def run_block(
        self,
        layer: int,
        hidden: Float[Tensor, "row d_model"],
        edit: Float[Tensor, "row d_model"] | None = None,
        *,
        max_rows: int = 256,
    ) -> Float[Tensor, "row d_model"]:
        """Run block `layer` on many versions of the last token.

        Args:
            layer: Block index.
            hidden: Versions of the block's input, fp32.
            edit: Added to the attention's output, row by row.
            max_rows: Rows at once; bounds the memory of the copied keys and values.
        """
        outputs: list[Tensor] = []
        for start in range(0, len(hidden), max_rows):
            rows = slice(start, start + max_rows)
            outputs.append(self._run(layer, hidden[rows], None if edit is None else edit[rows]))
        return torch.cat(outputs)

    def _run(self, layer: int, hidden: Tensor, edit: Tensor | None) -> Tensor:
        part = self.model.anatomy.blocks[layer]
        own = repeated(self.cache.layers[layer], len(hidden), hidden.dtype)
        cache = copy.copy(self.cache)
        cache.layers = [*self.cache.layers[:layer], own, *self.cache.layers[layer + 1 :]]
        one, two = self.calls[layer]
        others, named = one.replayed(two, cache, len(hidden), hidden.dtype)

        def register(scope: Scope) -> list[Any]:
            term = next((one for one in part.attn_adds if one.module is not None), None)
            if edit is None or term is None:  # a block without a mixer takes no push there
                return []
            push, mixer = edit / term.scale, term.module
            assert mixer is not None

            def add(_module: nn.Module, _args: Any, output: Any) -> Any:
                value = first_output(output)
                return replaced(output, value + push.reshape(value.shape).to(value.device))

            return [mixer.register_forward_hook(owned(mixer, scope, add))]

        inputs = hidden[:, None].to(device_of(part.block))
        with hooked(register):
            found = first_output(in_float(part.block, inputs, *others, **named))[:, 0]
        return found.to(hidden.device)


def repeated(layer: Any, rows: int, dtype: torch.dtype | None = None) -> Any:
    """What a cache holds of one layer, copied for many rows, whatever it is: keys and values,
    states of a linear attention or a state space.

    Args:
        layer: Of a cache that holds one row.
        rows: How many.
        dtype: Of the copy; None leaves it as it is.
    """
    own = copy.copy(layer)

    def many(value: Any) -> Any:
        if isinstance(value, dict):
            entries = cast("dict[Any, Any]", value)
            return {key: many(entry) for key, entry in entries.items()}
        if not isinstance(value, Tensor) or value.ndim < 2:
            return copy.copy(value)
        wide = value.expand(rows, *value.shape[1:])
        wide = wide.to(dtype) if dtype is not None and value.is_floating_point() else wide
        # States are written over in place; keys and values are joined to new ones, which copies.
        joined = value is getattr(layer, "keys", None) or value is getattr(layer, "values", None)
        return wide if joined else wide.clone()

    vars(own).update({name: many(value) for name, value in vars(layer).items()})
    return own


def copies_of(cache: Any, rows: int) -> Any:
    """A cache of one row, copied for many; what is written to the copies does not reach it.

    None, where there is none.
    """
    if cache is None:
        return None
    own = copy.copy(cache)
    own.layers = [repeated(layer, rows) for layer in cache.layers]
    return own


def in_float(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a module with its weights widened to fp32 for this call; hooks on it run as ever.

    Quantised linear modules inside are replaced by their `linear_map` meanwhile.
    """
    half = {torch.bfloat16, torch.float16}
    with loaded(module), unpacked(module):
        tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        wide = {name: t.float() for name, t in tensors.items() if t.dtype in half and is_plain(t)}
        if not wide:
            return module(*args, **kwargs)
        return torch.func.functional_call(module, wide, args, kwargs)


@torch.no_grad()
def last_token(model: LanguageModel, ids: Sequence[int]) -> LastToken:
    """Run a prompt once and keep what a replay of its last token needs.

    Raises:
        DataError: If the prompt has fewer than two tokens.
        ModelError: If replaying the unedited token does not give back the model's own result.
    """
    from transformers import DynamicCache

    if len(ids) < 2:
        raise DataError("Influence needs a prompt of at least two tokens.")
    anatomy = model.anatomy
    tokens = torch.tensor([list(ids)], device=model.device)
    prefix = DynamicCache(config=model.hf.config.get_text_config())
    anatomy.base(input_ids=tokens[:, :-1], past_key_values=prefix, use_cache=True)
    running = copy.deepcopy(prefix)
    kinds = KINDS[:3] if anatomy.has_resid_mid else ("resid_pre", "resid_post")
    sites = [Site(layer, kind) for layer in range(anatomy.n_layers) for kind in kinds]
    states: dict[Site, Tensor] = {}

    def read(site: Site, value: Tensor) -> None:
        states[site] = value[0, -1].float().to(tokens.device)

    with reading(anatomy, sites, read):
        one = _calls(anatomy, tokens[:, -1:], running)
    two = _calls(anatomy, tokens[:, -1:].expand(2, -1), copies_of(prefix, 2))
    stacked = {
        kind: torch.stack([states[Site(layer, kind)] for layer in range(anatomy.n_layers)])
        for kind in kinds
    }
    token = LastToken(
        model=model,
        cache=prefix,
        calls=list(zip(one, two, strict=True)),
        resid_pre=stacked["resid_pre"],
        resid_mid=stacked.get("resid_mid", stacked["resid_post"]),
        resid_post=stacked["resid_post"],
    )
    _check(token)
    return token


def _calls(anatomy: Anatomy, ids: Int[Tensor, "row 1"], cache: Any) -> list[BlockCall]:
    """Run one token per row, and see how each block is called."""
    calls: dict[int, BlockCall] = {}

    def watch(layer: int) -> Callable[..., None]:
        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            others = {k: v for k, v in kwargs.items() if args or k != "hidden_states"}
            calls[layer] = BlockCall(tuple(args[1:]), others, cache)

        return before

    def register(scope: Scope) -> list[Any]:
        return [
            block.register_forward_pre_hook(owned(block, scope, watch(layer)), with_kwargs=True)
            for layer, block in enumerate(part.block for part in anatomy.blocks)
        ]

    with hooked(register):
        anatomy.base(input_ids=ids, past_key_values=cache, use_cache=True)
    return [calls[layer] for layer in range(anatomy.n_layers)]


def _check(token: LastToken) -> None:
    """Replaying the unedited token must give the recorded states."""
    for layer in (0, len(token.resid_pre) - 1):
        twice = token.run_block(layer, token.resid_pre[layer].expand(2, -1))
        there = token.resid_post[layer]
        if float((twice - there).norm(dim=-1).max()) > 0.02 * float(there.norm()):
            raise ModelError(
                f"Replaying a block of {token.model.name} ({token.model.anatomy.family}) does not "
                "give back its output; this family keeps state that last-token replay misses."
            )
