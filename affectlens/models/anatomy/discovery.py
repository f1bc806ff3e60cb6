"""Taking a model apart: by what TransformerLens knows of its family, else by what it does.

Families that no adapter knows, or whose adapter is not right for this model, are found from the
module tree and two passes over four tokens: the longest list of modules that hand on a stream of
the model's width are its blocks, and what each block adds up says which part is which.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from affectlens.core.errors import ModelError
from affectlens.models.anatomy.anatomy import Anatomy, find_anatomy
from affectlens.models.anatomy.mixing import Mixing
from affectlens.models.anatomy.roles import block_parts
from affectlens.models.anatomy.selfcheck import check_anatomy, prompt, run
from affectlens.models.anatomy.sums import following
from affectlens.models.hooking.compiled import uncompiled
from affectlens.models.hooking.values import first_input, first_output


def take_apart(hf: Any) -> Anatomy:
    """The parts of a model, each proved on its own numbers.

    Args:
        hf: A causal language model with its weights, alone or within a model for images or sound,
            raw or already wrapped by a ``TransformerBridge``.

    Raises:
        ModelError: If it cannot be run on token ids, or no blocks are found that pass a residual
            stream on.
    """
    try:
        return check_anatomy(hf, find_anatomy(hf))
    except ModelError:
        return check_anatomy(hf, discover(hf))


def discover(hf: Any, **told: Any) -> Anatomy:
    """Find the parts of a model by running it on four tokens.

    Args:
        hf: The model.
        told: What it is told besides the tokens, otherwise than by default; see
            `affectlens.models.anatomy.selfcheck.run`.

    Raises:
        ModelError: As `take_apart`.
    """
    family, config = type(hf).__name__, text_config(hf)
    d_model = _d_model(hf, config)
    blocks = find_blocks(hf, d_model, **told)
    with following(blocks) as calls, _after(hf, blocks) as norms:
        run(hf, family, prompt(hf), **told)
    mixing = Mixing()
    parts = tuple(
        block_parts(layer, block, call, mixing)
        for layer, (block, call) in enumerate(zip(blocks, calls, strict=True))
    )
    n_heads = max(part.n_heads for part in parts)
    return Anatomy(
        family=family,
        n_layers=len(parts),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=int(getattr(config, "num_key_value_heads", None) or n_heads) if n_heads else 0,
        d_head=max(part.d_head for part in parts),
        d_mlp=max(part.d_mlp for part in parts),
        context_length=_context_length(config),
        model=hf,
        base=getattr(hf, "base_model", hf),
        final_norm=norms[0] if norms else nn.Identity(),
        unembed=hf.get_output_embeddings(),
        blocks=parts,
        known_by="a traced pass",
    )


def text_config(hf: Any) -> Any:
    """The part of a config that describes the language model."""
    config = hf.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def find_blocks(hf: Any, d_model: int, **told: Any) -> list[nn.Module]:
    """The decoder blocks: the longest list whose members pass a stream on, one to the next.

    Args:
        hf: The model.
        d_model: Width of the stream.
        told: As in `discover`.

    Raises:
        ModelError: If there is none.
    """
    lists = [
        [uncompiled(member) for member in module]
        for module in _tower(hf).modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module)
    ]
    given: dict[nn.Module, Tensor] = {}
    gave: dict[nn.Module, Tensor] = {}

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if args or kwargs:
            given.setdefault(module, first_input(args, kwargs))

    def after(module: nn.Module, _args: Any, output: Any) -> None:
        gave.setdefault(module, first_output(output))

    ids = prompt(hf)
    with ExitStack() as stack:
        for module in {member for members in lists for member in members}:
            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after).remove)
        run(hf, type(hf).__name__, ids, **told)
    shape = (*ids.shape, d_model)

    def passes_on(members: list[nn.Module]) -> bool:
        ends = [(given.get(member), gave.get(member)) for member in members]
        if not all(isinstance(x, Tensor) and tuple(x.shape) == shape for end in ends for x in end):
            return False
        return all(
            _same(cast("Tensor", one[1]), cast("Tensor", two[0])) for one, two in pairwise(ends)
        )

    found = [members for members in lists if passes_on(members)]
    if not found:
        raise ModelError(
            f"{type(hf).__name__} has no list of blocks that pass one residual stream of width "
            f"{d_model} from one to the next, so there is nothing to read or steer; use a decoder "
            "language model."
        )
    return max(found, key=len)


def _same(one: Tensor, two: Tensor) -> bool:
    """Whether it is one tensor, or another with the same values (which the meta device lacks)."""
    return one is two or (not one.is_meta and bool(torch.equal(one, two)))


def _tower(hf: Any) -> nn.Module:
    """The language model within a model for images or sound, if it says which that is."""
    try:
        decoder = hf.get_decoder() if hasattr(hf, "get_decoder") else None
    except (AttributeError, NotImplementedError, ValueError):
        decoder = None
    return decoder if isinstance(decoder, nn.Module) else hf


@contextmanager
def _after(hf: Any, blocks: list[nn.Module]) -> Generator[list[nn.Module], None, None]:
    """What reads the stream when the last block has given it; the final norm comes first."""
    readers: list[nn.Module] = []
    last: list[Tensor] = []
    inside = {module for block in blocks for module in block.modules()}

    def ends(_module: nn.Module, _args: Any, output: Any) -> None:
        last[:] = [first_output(output)]

    def reads(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if last and (args or kwargs) and first_input(args, kwargs) is last[0]:
            readers.append(module)

    with ExitStack() as stack:
        stack.callback(blocks[-1].register_forward_hook(ends).remove)
        for module in hf.modules():
            if module not in inside:
                stack.callback(module.register_forward_pre_hook(reads, with_kwargs=True).remove)
        yield readers


def _d_model(hf: Any, config: Any) -> int:
    for name in ("hidden_size", "d_model", "n_embd"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    return int(hf.get_input_embeddings().weight.shape[-1])


def _context_length(config: Any) -> int:
    """Longest sequence; models that set none (state spaces) take any."""
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "context_length"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    return 1 << 20
