"""Where attention, MLP, norms and projections of a model are.

TransformerLens's architecture adapters know the names for some fifty families; we look the modules
up on the raw Hugging Face model and hold their shapes against the config.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from affectlens.core.errors import ModelError, unknown
from affectlens.core.places import KINDS
from affectlens.models.anatomy.transformer_lens import PartNames, known_family, part_names, unwrap
from affectlens.models.hooking.compiled import uncompiled
from affectlens.models.linear_map import linear_map, linear_offset, shape_in_out


@dataclass(frozen=True, eq=False)
class BlockParts:
    """The modules of one decoder block.

    Attributes:
        layer: Block index, from 0.
        block: The decoder layer: its first argument is resid_pre, its (first) output resid_post.
        attn: Its attention.
        mlp: Its MLP (the block itself in families that keep the projections there).
        o_proj: ``W_O``; its *input* is z, all heads side by side, ``[batch, pos, heads * d_head]``.
        down_proj: ``W_down``; its *input* is mlp_post, ``[batch, pos, d_mlp]``.
        attn_post_norm: Norm of the attention output before it is added (Gemma 2/3, OLMo 2).
        mlp_post_norm: The same for the MLP.
        mid_reader: The module whose input is resid_mid; None in parallel blocks.
        parallel: Attention and MLP read the same residual (GPT-NeoX): there is no resid_mid.
        n_heads: Query heads.
        flat: Parts of the block work on batch and position as one axis, ``[batch * pos, width]``
            (the MLP of OPT); seen when the model is first run.
    """

    layer: int
    block: nn.Module
    attn: nn.Module
    mlp: nn.Module
    o_proj: nn.Module
    down_proj: nn.Module
    attn_post_norm: nn.Module | None
    mlp_post_norm: nn.Module | None
    mid_reader: nn.Module | None
    parallel: bool
    n_heads: int
    flat: bool = False

    def W_O(self) -> Float[Tensor, "n_heads d_head d_model"]:
        """Output projection per head, fp32, where it computes; see `linear_map`."""
        weight = linear_map(unwrap(self.o_proj))
        return weight.reshape(self.n_heads, -1, weight.shape[1])

    def b_O(self) -> Float[Tensor, " d_model"] | None:
        """Bias of the output projection, fp32."""
        return linear_offset(unwrap(self.o_proj))

    def W_down(self) -> Float[Tensor, "d_mlp d_model"]:
        """Down projection, fp32, where it computes; see `linear_map`."""
        return linear_map(unwrap(self.down_proj))

    def b_down(self) -> Float[Tensor, " d_model"] | None:
        """Bias of the down projection, fp32."""
        return linear_offset(unwrap(self.down_proj))


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A model taken apart.

    Attributes:
        family: Class name, for example ``"LlamaForCausalLM"``.
        n_layers, d_model, n_heads, n_kv_heads, d_head, d_mlp: As TransformerLens names them.
        context_length: Longest sequence in tokens.
        model: The whole model, with its unembedding.
        base: The model without it: runs all blocks, computes no logits. It is what ``model`` calls
            with token ids, mask and cache, seen when the model is first run.
        final_norm: Norm after the last block.
        unembed: The unembedding, if there is one.
        blocks: The decoder blocks in order.
    """

    family: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    context_length: int
    model: nn.Module
    base: nn.Module
    final_norm: nn.Module
    unembed: nn.Module | None
    blocks: tuple[BlockParts, ...]

    @property
    def parallel(self) -> bool:
        """Whether any block adds attention and MLP to the same residual."""
        return any(block.parallel for block in self.blocks)

    @property
    def causal(self) -> bool:
        """Whether no token sees a later one, so that padding on the right needs no mask."""
        return all(getattr(unwrap(part.attn), "is_causal", False) is True for part in self.blocks)

    def width(self, kind: str) -> int:
        """Size of the last axis at a kind of site.

        Raises:
            UnknownNameError: If there is no such kind.
        """
        if kind not in KINDS:
            raise unknown("site", kind, KINDS)
        return {"z": self.n_heads * self.d_head, "mlp_post": self.d_mlp}.get(kind, self.d_model)


def find_anatomy(hf_model: Any) -> Anatomy:
    """Find the parts of a Hugging Face model; the model is only looked at, never changed.

    What only a forward pass can tell, `affectlens.models.anatomy.selfcheck.check_anatomy` adds.

    Args:
        hf_model: A causal language model, raw or already wrapped by a ``TransformerBridge``.

    Raises:
        ModelError: If the architecture is not known, or a part is missing or of the wrong shape;
            the message names the architecture.
    """
    config = hf_model.config
    family = known_family(type(hf_model))
    names = part_names(config, family)
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    d_model = int(text_config.hidden_size)
    layers = _module(hf_model, names.blocks, family)
    blocks = tuple(
        _block(block, layer, names, family) for layer, block in enumerate(cast("Any", layers))
    )
    if not blocks:
        raise ModelError(f"{family}: this model has no decoder blocks.")
    d_mlp = _shape_in_out(blocks[0].down_proj, family)[0]
    for part in blocks:
        expected = {
            "o_proj": (names.n_heads * names.d_head, d_model),
            "down_proj": (d_mlp, d_model),
        }
        for name, wanted in expected.items():
            found = _shape_in_out(getattr(part, name), family)
            if found != wanted:
                raise ModelError(
                    f"{family}: {name} of block {part.layer} maps {found[0]} to {found[1]} values, "
                    f"not {wanted[0]} to {wanted[1]} as the config says; this variant of the "
                    "architecture is not supported."
                )
    base = getattr(hf_model, "base_model", hf_model)
    return Anatomy(
        family=family,
        n_layers=len(blocks),
        d_model=d_model,
        n_heads=names.n_heads,
        n_kv_heads=names.n_kv_heads,
        d_head=names.d_head,
        d_mlp=d_mlp,
        context_length=names.context_length,
        model=hf_model,
        base=base,
        final_norm=_module(hf_model, names.final_norm, family),
        unembed=hf_model.get_output_embeddings(),
        blocks=blocks,
    )


def _block(block: Any, layer: int, names: PartNames, family: str) -> BlockParts:
    block = uncompiled(block)
    raw = unwrap(block)

    def optional(name: str | None) -> nn.Module | None:
        return None if name is None else _module(raw, name, f"{family} block {layer}")

    def required(name: str) -> nn.Module:
        return _module(raw, name, f"{family} block {layer}")

    mlp = required(names.mlp)
    mid = optional(names.pre_mlp_norm)
    if mid is None and names.mlp:
        mid = mlp  # post-norm families (OLMo 2): the MLP reads the residual itself
    return BlockParts(
        layer=layer,
        block=block,
        attn=required(names.attn),
        mlp=mlp,
        o_proj=required(names.o_proj),
        down_proj=required(names.down_proj),
        attn_post_norm=optional(names.attn_post_norm),
        mlp_post_norm=optional(names.mlp_post_norm),
        mid_reader=None if names.parallel else mid,
        parallel=names.parallel,
        n_heads=names.n_heads,
    )


def _module(root: Any, path: str, where: str) -> nn.Module:
    """Follow a dotted path over modules, through bridge components where there are any."""
    module: Any = root
    for name in path.split(".") if path else ():
        found = _child(module, name)
        if found is None:
            raise ModelError(f"{where}: there is no module {path!r} where TransformerLens puts it.")
        module = found
    return module


def _child(module: Any, name: str) -> nn.Module | None:
    """A submodule by its Hugging Face name, also under a bridge component with its own names."""
    raw = unwrap(module)
    found = uncompiled(raw._modules.get(name))
    return found if isinstance(found, nn.Module) else None


def _shape_in_out(module: nn.Module, family: str) -> tuple[int, int]:
    found = shape_in_out(unwrap(module))
    if found is None:
        raise ModelError(
            f"{family}: an output projection is no linear module ({type(unwrap(module)).__name__})."
        )
    return found
