"""Does the anatomy describe this model? Found out by one short forward pass.

The adapters cover families that add scaled sublayers, norms after the addition, or experts; a wrong
reading there gives plausible numbers. So the identities the rest of the package relies on are
checked on four tokens when a model is loaded, in every block, and what only a pass can tell is
added to the anatomy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affectlens.core.errors import ModelError
from affectlens.core.places import KINDS, Site
from affectlens.models.anatomy.anatomy import Anatomy, BlockParts
from affectlens.models.anatomy.transformer_lens import unwrap
from affectlens.models.hooking.hooks import reading
from affectlens.models.linear_map import (
    is_conv1d,
    is_its_weight,
    is_quantised,
    linear_map,
    linear_offset,
)
from affectlens.models.placement import device_of, loaded
from affectlens.models.reading_errors import first_line

TOLERANCE = 0.03
"""Relative error allowed per block of the residual stream; bfloat16 rounds at 0.4 %."""

PROJECTION_TOLERANCE = {torch.bfloat16: 4e-3, torch.float16: 1e-3}
"""Relative error allowed of ``x·W + b`` by number format, computed in that format."""

QUANTISED_TOLERANCE = 0.03
"""The same where weights are kept as codes: some modules round what comes in to 8 bits too."""

_PROJECTIONS = {
    "z": ("o_proj", "heads", "attention"),
    "mlp_post": ("down_proj", "neurons", "MLP"),
}
"""Input of each output projection: its name, what adds up there, and to what."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one pass showed.

    Attributes:
        sites: Value of each site, ``[token, width]``.
        outputs: What each projection gave, ``[token, d_model]``, before any norm.
        flat: Blocks in which a value came without a batch axis.
        called: Modules that hold all blocks and were called, outermost first.
    """

    sites: dict[Site, Tensor]
    outputs: dict[tuple[int, str], Tensor]
    flat: set[int]
    called: list[nn.Module]


def check_anatomy(hf: Any, anatomy: Anatomy) -> Anatomy:
    """Hold the identities of every block against a pass over four tokens.

    These are ``resid_post = resid_pre + attn_out + mlp_out``, ``resid_mid = resid_pre + attn_out``,
    and ``x·W + b`` of both output projections.

    Returns:
        The anatomy, with the base that the model really calls and the blocks that flatten.

    Raises:
        ModelError: If an identity fails or the model cannot run on four tokens.
    """
    sites = [
        Site(layer, kind)
        for layer in range(anatomy.n_layers)
        for kind in KINDS
        if kind != "resid_mid" or not anatomy.parallel
    ]
    vocab = hf.get_input_embeddings().weight.shape[0]
    device = device_of(hf.get_input_embeddings())
    ids = torch.arange(4, device=device).remainder(vocab).unsqueeze(0)
    try:
        with torch.no_grad(), _watching(hf, anatomy, sites) as seen:
            hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ModelError(
            f"{anatomy.family}: the model does not run on a plain prompt ({first_line(error)})."
        ) from error
    for part in anatomy.blocks:
        _check_stream(part, seen, anatomy)
        _check_projections(part, seen, anatomy)
    blocks = tuple(replace(part, flat=part.layer in seen.flat) for part in anatomy.blocks)
    return replace(anatomy, base=_base(seen, anatomy), blocks=blocks)


@contextmanager
def _watching(hf: Any, anatomy: Anatomy, sites: list[Site]) -> Generator[_Seen, None, None]:
    seen = _Seen({}, {}, set(), [])

    def keep(site: Site, value: Tensor) -> None:
        if value.ndim == 2:
            seen.flat.add(site.layer)
        seen.sites[site] = value.detach().reshape(-1, value.shape[-1]).clone()

    def keep_output(layer: int, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            seen.outputs[layer, name] = output.detach().reshape(-1, output.shape[-1]).clone()

        return hook

    def note(module: nn.Module, _args: Any) -> None:
        if module not in seen.called:
            seen.called.append(module)

    with ExitStack() as stack:
        for module in _around(hf, anatomy.blocks[0].block):
            stack.callback(module.register_forward_pre_hook(note).remove)
        for part in anatomy.blocks:
            for name, _, _ in _PROJECTIONS.values():
                hook = keep_output(part.layer, name)
                stack.callback(getattr(part, name).register_forward_hook(hook).remove)
        stack.enter_context(reading(anatomy, sites, keep))
        yield seen


def _around(hf: nn.Module, block: nn.Module) -> list[nn.Module]:
    """The modules between the model and its blocks, outermost first."""
    path = next(name for name, module in hf.named_modules() if module is block).split(".")
    return [hf.get_submodule(".".join(path[:length])) for length in range(1, len(path))]


def _base(seen: _Seen, anatomy: Anatomy) -> nn.Module:
    """The outermost module that the model calls and that takes token ids."""
    for module in seen.called:
        if "input_ids" in inspect.signature(module.forward).parameters:
            return module
    raise ModelError(
        f"{anatomy.family} calls no module that runs all its blocks from token ids, so it cannot "
        "be run without its unembedding; this variant of the architecture is not supported."
    )


def _check_stream(part: BlockParts, seen: _Seen, anatomy: Anatomy) -> None:
    layer = part.layer
    kinds = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    pre, attn, mlp, post = (seen.sites[Site(layer, kind)].float() for kind in kinds)
    wanted = [(pre + attn + mlp, post, f"block {layer} does not add up to its output")]
    if not anatomy.parallel:
        mid = seen.sites[Site(layer, "resid_mid")].float()
        wanted.append((pre + attn, mid, f"the middle of block {layer} does not add up"))
    for value, there, what in wanted:
        error = _error(value, there)
        if not error <= TOLERANCE:
            raise ModelError(
                f"{anatomy.family} computes its residual stream in another way than affectlens "
                f"expects ({what}, relative error {error:.2g}); this variant is not supported."
            )


def _check_projections(part: BlockParts, seen: _Seen, anatomy: Anatomy) -> None:
    for kind, (name, units, sublayer) in _PROJECTIONS.items():
        module: nn.Module = unwrap(getattr(part, name))
        there = seen.outputs[part.layer, name]
        value = _projected(module, seen.sites[Site(part.layer, kind)])
        error = _error(value.float(), there.float())
        if not error <= _tolerance(module, there.dtype):
            raise ModelError(
                f"{anatomy.family}: the {units} of block {part.layer} do not add up to its "
                f"{sublayer} (its {type(module).__name__} is no linear map, or a hook changes it, "
                f"relative error {error:.2g}); remove hooks, and load without quantisation."
            )


def _projected(module: Any, value: Tensor) -> Tensor:
    """``x·W + b``; a plain matrix as PyTorch does, so that even 16-bit formats differ by little."""
    with loaded(module):
        if is_its_weight(module):
            weight, bias = cast("Tensor", module.weight).detach(), module.bias
            value = value.to(weight.dtype)
            return F.linear(value, weight.T if is_conv1d(module) else weight, bias).detach()
        found = value.float() @ linear_map(module)
        bias = linear_offset(module)
        return found if bias is None else found + bias


def _tolerance(module: nn.Module, dtype: torch.dtype) -> float:
    return QUANTISED_TOLERANCE if is_quantised(module) else PROJECTION_TOLERANCE.get(dtype, 1e-4)


def _error(value: Tensor, there: Tensor) -> float:
    return float((value - there).norm() / there.norm().clamp_min(1e-12))
