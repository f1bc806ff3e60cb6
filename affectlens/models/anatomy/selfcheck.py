"""Does the anatomy describe this model? Found out by one short forward pass.

A wrong reading of a block gives plausible numbers. So the identities the rest of the package
relies on are checked on four tokens when a model is loaded, in every block, and what only a pass
can tell is added to the anatomy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from affectlens.core.errors import ModelError
from affectlens.core.places import KINDS, Site
from affectlens.models.anatomy.anatomy import Anatomy, BlockParts, Term
from affectlens.models.anatomy.levels import has
from affectlens.models.anatomy.roles import only_stream
from affectlens.models.anatomy.transformer_lens import unwrap
from affectlens.models.hooking.hooks import reading
from affectlens.models.hooking.values import first_output
from affectlens.models.linear_map import (
    is_conv1d,
    is_its_weight,
    is_quantised,
    linear_map,
    linear_offset,
)
from affectlens.models.mixtures.check import checking_mixtures
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
        outputs: What modules of a block gave, ``[token, d_model]``.
        flat: Blocks in which a value came without a batch axis.
        called: Modules that hold all blocks and were called, outermost first.
    """

    sites: dict[Site, Tensor]
    outputs: dict[tuple[int, nn.Module], Tensor]
    flat: set[int]
    called: list[nn.Module]


def prompt(hf: Any) -> Int[Tensor, "1 4"]:
    """Four tokens, all different where the vocabulary allows it, where the model takes its ids."""
    embedding = hf.get_input_embeddings()
    ids = torch.arange(4, device=device_of(embedding))
    return ids.remainder(embedding.weight.shape[0]).unsqueeze(0)


def run(hf: Any, family: str, ids: Int[Tensor, "batch pos"], **told: Any) -> None:
    """Run a model on token ids, without a cache.

    Args:
        hf: The model.
        family: For the message.
        ids: Tokens, none of them padding.
        told: What the model is told otherwise than by default.

    Raises:
        ModelError: If it cannot.
    """
    try:
        with torch.no_grad():
            hf(
                input_ids=ids,
                **{"attention_mask": torch.ones_like(ids), "use_cache": False, **told},
            )
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ModelError(
            f"{family}: the model does not run on a plain prompt ({first_line(error)})."
        ) from error


def check_anatomy(hf: Any, anatomy: Anatomy) -> Anatomy:
    """Hold the identities of every block against a pass over four tokens.

    These are the sums that resid_mid and resid_post are said to be, and ``x·W + b`` of both output
    projections.

    Returns:
        The anatomy, with the base that the model really calls and the blocks that flatten. What a
        traced pass took for more than it is, is less in it: a block whose sums do not come out
        keeps its stream, one whose projections do not keeps its sublayers.

    Raises:
        ModelError: If an identity of what TransformerLens says fails, or the model cannot run on
            four tokens.
    """
    sites = [Site(n, kind) for n in range(anatomy.n_layers) for kind in KINDS]
    sites = [site for site in sites if has(anatomy.blocks[site.layer], site)]
    mixtures = {part.layer: part.experts for part in anatomy.blocks if part.experts is not None}
    with _watching(hf, anatomy, sites) as seen, checking_mixtures(mixtures) as errors:
        run(hf, anatomy.family, prompt(hf))
    blocks: list[BlockParts] = []
    for part in anatomy.blocks:
        part = replace(part, flat=part.layer in seen.flat)
        wrong = _stream_error(part, seen)
        if wrong is not None:
            if anatomy.known_by == "TransformerLens":
                raise ModelError(
                    f"{anatomy.family} computes its residual stream otherwise: {wrong}."
                )
            blocks.append(replace(only_stream(part.layer, part.block, wrong), flat=part.flat))
            continue
        for kind in _PROJECTIONS:
            wrong = _projection_error(part, kind, seen)
            if wrong is not None:
                if anatomy.known_by == "TransformerLens":
                    raise ModelError(f"{anatomy.family}: in block {part.layer} {wrong}.")
                part = _without(part, kind, wrong)
        if not errors.get(part.layer, 0.0) <= TOLERANCE:
            wrong = f"its experts do not add up to its MLP (error {errors[part.layer]:.2g})"
            part = replace(part, experts=None, lacks={**part.lacks, "experts": wrong})
        blocks.append(part)
    return replace(anatomy, base=_base(seen, anatomy), blocks=tuple(blocks))


def largest_errors(
    hf: Any, anatomy: Anatomy, ids: Int[Tensor, "1 pos"]
) -> dict[str, tuple[float, int]]:
    """How far the sums of a model's blocks are from what they are said to be, on a prompt.

    Args:
        hf: The model.
        anatomy: What it is said to be.
        ids: Token ids of the prompt.

    Returns:
        By kind of site, the largest relative error and the layer where it is. Under ``z`` and
        ``mlp_post``: of the sums of heads and of neurons.
    """
    sites = [Site(n, kind) for n in range(anatomy.n_layers) for kind in KINDS]
    with _watching(hf, anatomy, [s for s in sites if has(anatomy.blocks[s.layer], s)]) as seen:
        run(hf, anatomy.family, ids)
    found: dict[str, tuple[float, int]] = {}
    for part in anatomy.blocks:
        errors = _sum_errors(part, seen)
        for kind, (name, _, _) in _PROJECTIONS.items():
            if getattr(part, name) is not None:
                errors[kind] = _unit_error(part, kind, seen)
        for kind, error in errors.items():
            found[kind] = max(found.get(kind, (0.0, part.layer)), (error, part.layer))
    return found


def _without(part: BlockParts, kind: str, why: str) -> BlockParts:
    name = _PROJECTIONS[kind][0]
    n_heads = part.n_heads if name == "down_proj" else 0
    return replace(part, **{name: None}, n_heads=n_heads, lacks={**part.lacks, name: why})


@contextmanager
def _watching(hf: Any, anatomy: Anatomy, sites: list[Site]) -> Generator[_Seen, None, None]:
    seen = _Seen({}, {}, set(), [])

    def keep(site: Site, value: Tensor) -> None:
        if value.ndim == 2:
            seen.flat.add(site.layer)
        seen.sites[site] = value.detach().reshape(-1, value.shape[-1]).clone()

    def keep_output(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, _args: Any, output: Any) -> None:
            output = first_output(output)
            seen.outputs[layer, module] = output.detach().reshape(-1, output.shape[-1]).clone()

        return hook

    def note(module: nn.Module, _args: Any) -> None:
        if module not in seen.called:
            seen.called.append(module)

    with ExitStack() as stack:
        for module in _around(hf, anatomy.blocks[0].block):
            stack.callback(module.register_forward_pre_hook(note).remove)
        for part in anatomy.blocks:
            modules = {term.module for term in (*part.mid_sum, *part.post_sum) if term.module}
            modules |= {x for x in (part.o_proj, part.down_proj) if x is not None}
            for module in modules:
                hook = keep_output(part.layer)
                stack.callback(module.register_forward_hook(hook).remove)
        stack.enter_context(reading(anatomy, sites, keep))
        yield seen


def _around(hf: nn.Module, block: nn.Module) -> list[nn.Module]:
    """The modules between the model and its blocks, outermost first."""
    path = next(name for name, module in hf.named_modules() if module is block).split(".")
    return [hf.get_submodule(".".join(path[:length])) for length in range(1, len(path))]


def _base(seen: _Seen, anatomy: Anatomy) -> nn.Module:
    """The outermost module that the model calls and that takes token ids and makes no logits.

    (Llama 4 with its eyes calls a whole language model, unembedding and all.)
    """
    called = [m for m in seen.called if "input_ids" in inspect.signature(m.forward).parameters]
    inner = [m for m in called if all(part is not anatomy.unembed for part in m.modules())]
    if inner or called:
        return (inner or called)[0]
    raise ModelError(
        f"{anatomy.family} calls no module that runs all its blocks from token ids, so it cannot "
        "be run without its unembedding; this variant of the architecture is not supported."
    )


def _stream_error(part: BlockParts, seen: _Seen) -> str | None:
    """Which of its sums does not come out, in words."""
    what = {
        "resid_mid": "the middle of block {} does not add up",
        "resid_post": "block {} does not add up to its output",
        "attn_out": "block {} adds something else than its attention gives",
        "mlp_out": "block {} adds something else than its MLP gives",
    }
    for kind, error in _sum_errors(part, seen).items():
        if not error <= TOLERANCE:
            return f"{what[kind].format(part.layer)} (relative error {error:.2g})"
    return None


def _sum_errors(part: BlockParts, seen: _Seen) -> dict[str, float]:
    """How far sums are from what they are said to be, relative to that, by kind of site."""
    layer = part.layer
    pre = seen.sites[Site(layer, "resid_pre")].float()

    def total(terms: Sequence[Term]) -> Tensor:
        outputs = (pre if t.module is None else seen.outputs[layer, t.module] for t in terms)
        return sum(
            (t.scale * x.float() for t, x in zip(terms, outputs, strict=True)),
            start=torch.zeros_like(pre),
        )

    wanted = {
        "resid_mid": part.mid_sum,
        "resid_post": part.post_sum,
        "attn_out": part.attn_adds,
        "mlp_out": part.mlp_adds,
    }
    return {
        kind: _error(total(terms), seen.sites[Site(layer, kind)].float())
        for kind, terms in wanted.items()
        if terms
    }


def _projection_error(part: BlockParts, kind: str, seen: _Seen) -> str | None:
    """Whether a projection gives something else than its weights make of its input, in words."""
    name, units, sublayer = _PROJECTIONS[kind]
    found: nn.Module | None = getattr(part, name)
    if found is None:
        return None
    error = _unit_error(part, kind, seen)
    module: nn.Module = unwrap(found)
    if error <= _tolerance(module, seen.outputs[part.layer, found].dtype):
        return None
    return (
        f"the {units} do not add up to the output of its {sublayer} (its {type(module).__name__} "
        f"is no linear map, or a hook changes it, relative error {error:.2g})"
    )


def _unit_error(part: BlockParts, kind: str, seen: _Seen) -> float:
    """How far the units of a kind are from adding up to the output of their projection."""
    found: nn.Module = getattr(part, _PROJECTIONS[kind][0])
    value = _projected(unwrap(found), seen.sites[Site(part.layer, kind)])
    return _error(value.float(), seen.outputs[part.layer, found].float())


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
