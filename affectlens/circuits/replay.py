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
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.core.errors import DataError, ModelError
from affectlens.core.sites import KINDS, Site
from affectlens.models.compiled import running_eagerly
from affectlens.models.hooks import reading
from affectlens.models.scopes import Scope, opened, owned

if TYPE_CHECKING:
    from affectlens.models.anatomy import BlockParts
    from affectlens.models.loading import LanguageModel


def output_module(part: BlockParts, kind: str) -> nn.Module:
    """The module whose output sublayer `kind` (``attn`` or ``mlp``) adds to the residual."""
    if kind == "attn":
        return part.o_proj if part.attn_post_norm is None else part.attn_post_norm
    return part.down_proj if part.mlp_post_norm is None else part.mlp_post_norm


def first(value: Any) -> Tensor:
    """A module's output tensor, whether it comes alone or first in a tuple."""
    return value[0] if isinstance(value, tuple) else value


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

    A mask for one token over its whole prefix is the same for every row and broadcasts; so do
    positions and rotary angles. Only the cache has to be replaced.

    Attributes:
        args: Positional arguments after the hidden states.
        kwargs: Named arguments.
        cache: The cache among them.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    cache: Any

    def with_cache(self, cache: Any, dtype: torch.dtype) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with another cache, and its masks and angles in another precision."""
        kwargs = {k: _swap(v, self.cache, cache, dtype) for k, v in self.kwargs.items()}
        return tuple(_swap(v, self.cache, cache, dtype) for v in self.args), kwargs


def _swap(value: Any, old: Any, new: Any, dtype: torch.dtype) -> Any:
    # Not a closure: one that calls itself would keep the copied cache alive.
    if value is old:
        return new
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    if isinstance(value, (tuple, list)):
        return tuple(_swap(v, old, new, dtype) for v in cast("tuple[Any, ...]", value))
    return value


@dataclass(frozen=True, eq=False)
class LastToken:
    """One prompt, ready to have its last token recomputed.

    Attributes:
        model: The model it belongs to.
        cache: Keys and values of all tokens but the last (never changed).
        calls: Per layer how the model called the block for the last token.
        resid_pre: Per layer the block's input at the last token, as the model computed it.
        resid_mid: Per layer the residual after attention; of a parallel block, after the block.
        resid_post: Per layer the block's output.
    """

    model: LanguageModel
    cache: Any
    calls: list[BlockCall]
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
        own = copy.deepcopy(self.cache.layers[layer])
        own.keys, own.values = (
            x.to(hidden.dtype).expand(len(hidden), -1, -1, -1) for x in (own.keys, own.values)
        )
        cache = copy.copy(self.cache)
        cache.layers = [*self.cache.layers[:layer], own, *self.cache.layers[layer + 1 :]]
        others, named = self.calls[layer].with_cache(cache, hidden.dtype)

        def add(_module: nn.Module, _args: Any, output: Tensor) -> Tensor | None:
            return None if edit is None else output + edit[:, None]

        output = output_module(part, "attn")
        with hooked(lambda scope: [output.register_forward_hook(owned(output, scope, add))]):
            return first(in_float(part.block, hidden[:, None], *others, **named))[:, 0]


def in_float(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a module with its weights widened to fp32 for this call; hooks on it run as ever."""
    half = {torch.bfloat16, torch.float16}
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    if not any(t.dtype in half for t in tensors.values()):
        return module(*args, **kwargs)
    wide = {name: t.float() if t.dtype in half else t for name, t in tensors.items()}
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
    kinds = ("resid_pre", "resid_post") if anatomy.parallel else KINDS[:3]
    sites = [Site(layer, kind) for layer in range(anatomy.n_layers) for kind in kinds]
    states: dict[Site, Tensor] = {}
    calls: dict[int, BlockCall] = {}

    def read(site: Site, value: Tensor) -> None:
        states[site] = value[0, -1].float()

    def watch(layer: int) -> Callable[..., None]:
        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            others = {k: v for k, v in kwargs.items() if args or k != "hidden_states"}
            calls[layer] = BlockCall(tuple(args[1:]), others, running)

        return before

    def register(scope: Scope) -> list[Any]:
        return [
            block.register_forward_pre_hook(owned(block, scope, watch(layer)), with_kwargs=True)
            for layer, block in enumerate(part.block for part in anatomy.blocks)
        ]

    with hooked(register), reading(anatomy, sites, read):
        anatomy.base(input_ids=tokens[:, -1:], past_key_values=running, use_cache=True)
    stacked = {
        kind: torch.stack([states[Site(layer, kind)] for layer in range(anatomy.n_layers)])
        for kind in kinds
    }
    token = LastToken(
        model=model,
        cache=prefix,
        calls=[calls[layer] for layer in range(anatomy.n_layers)],
        resid_pre=stacked["resid_pre"],
        resid_mid=stacked.get("resid_mid", stacked["resid_post"]),
        resid_post=stacked["resid_post"],
    )
    _check(token)
    return token


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
