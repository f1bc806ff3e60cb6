"""Where attention, MLP, norms and projections of a model are.

TransformerLens's architecture adapters know the names for some fifty families; we look the modules
up on the raw Hugging Face model and hold their shapes against the config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from jaxtyping import Float
from torch import Tensor, nn

from affectlens.core.errors import ModelError, unknown
from affectlens.core.places import KINDS, Site
from affectlens.models.anatomy.transformer_lens import PartNames, known_family, part_names, unwrap
from affectlens.models.hooking.compiled import uncompiled
from affectlens.models.linear_map import linear_map, linear_offset, shape_in_out
from affectlens.models.mixtures.mixture import Mixture

Level = Literal["stream", "sublayers", "units"]
"""How far a block is taken apart: its residual stream; what its sublayers add; heads or neurons."""

PARALLEL = (
    "attention and MLP read the same residual (parallel blocks); read resid_pre, attn_out, mlp_out "
    "or resid_post"
)


@dataclass(frozen=True, eq=False)
class Term:
    """Something that is added up in a block.

    Attributes:
        module: Whose (first) output it is; None for what the block was given.
        scale: What that is multiplied by before it is added.
    """

    module: nn.Module | None
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class BlockParts:
    """The modules of one decoder block. What a block does not have is None or empty, see ``lacks``.

    Attributes:
        layer: Block index, from 0.
        block: The decoder layer: its first argument is resid_pre, its (first) output resid_post.
        attn: What mixes tokens: attention, linear attention, a state space.
        mlp: Its MLP, dense or a mixture of experts (the block itself in families that keep the
            projections there).
        o_proj: ``W_O``; its *input* is z, all heads side by side, ``[batch, pos, heads * d_head]``.
            None where there are no heads.
        down_proj: ``W_down``; its *input* is mlp_post, ``[batch, pos, d_mlp]``. None where the MLP
            is not dense.
        attn_post_norm: Norm of the attention output before it is added (Gemma 2/3, OLMo 2).
        mlp_post_norm: The same for the MLP.
        mid_reader: The module whose input is resid_mid; None where there is none.
        attn_adds, mlp_adds: What is added to the stream: attn_out and mlp_out are their sums.
        attn_scale, mlp_scale: What the outputs of ``o_proj`` and ``down_proj`` are multiplied by
            on their way there, a norm in between aside.
        mid_sum, post_sum: All that resid_mid and resid_post are the sums of. ``post_sum`` is empty
            where it is not known.
        n_heads: Query heads; 0 where there are none.
        mixture: Whether the MLP is a mixture of experts.
        experts: Its parts, if they are kept in a way that is known.
        lacks: For each of the attributes above that is None or empty, why, as the end of a
            sentence: ``"its mixer (Mamba2Mixer) is no attention"``.
        flat: Parts of the block work on batch and position as one axis, ``[batch * pos, width]``
            (the MLP of OPT); seen when the model is first run.
    """

    layer: int
    block: nn.Module
    attn: nn.Module | None = None
    mlp: nn.Module | None = None
    o_proj: nn.Module | None = None
    down_proj: nn.Module | None = None
    attn_post_norm: nn.Module | None = None
    mlp_post_norm: nn.Module | None = None
    mid_reader: nn.Module | None = None
    attn_adds: tuple[Term, ...] = ()
    mlp_adds: tuple[Term, ...] = ()
    attn_scale: float = 1.0
    mlp_scale: float = 1.0
    mid_sum: tuple[Term, ...] = ()
    post_sum: tuple[Term, ...] = ()
    n_heads: int = 0
    mixture: bool = False
    experts: Mixture | None = None
    lacks: Mapping[str, str] = field(default_factory=dict[str, str])
    flat: bool = False

    @property
    def level(self) -> Level:
        """How far the block is taken apart."""
        if self.n_heads or self.n_neurons:
            return "units"
        return "sublayers" if self.attn_adds or self.mlp_adds else "stream"

    @property
    def d_head(self) -> int:
        """Width of one head at the input of ``W_O``; 0 where there are none."""
        return inputs(self.o_proj) // self.n_heads if self.n_heads else 0

    @property
    def d_mlp(self) -> int:
        """How many neurons; 0 where the MLP is not dense."""
        return inputs(self.down_proj)

    @property
    def n_neurons(self) -> int:
        """How many neurons, those of all experts among them; 0 where none are known."""
        return self.d_mlp if self.experts is None else self.experts.n_neurons

    def W_O(self) -> Float[Tensor, "n_heads d_head d_model"]:
        """Output projection per head, fp32, where it computes; see `linear_map`.

        Raises:
            ModelError: If the block has no heads.
        """
        weight = linear_map(self._required("o_proj", "heads"))
        return weight.reshape(self.n_heads, -1, weight.shape[1])

    def b_O(self) -> Float[Tensor, " d_model"] | None:
        """Bias of the output projection, fp32."""
        return linear_offset(self._required("o_proj", "heads"))

    def W_down(self) -> Float[Tensor, "d_mlp d_model"]:
        """Down projection, fp32, where it computes; see `linear_map`.

        Raises:
            ModelError: If the block has no dense MLP.
        """
        return linear_map(self._required("down_proj", "neurons"))

    def b_down(self) -> Float[Tensor, " d_model"] | None:
        """Bias of the down projection, fp32."""
        return linear_offset(self._required("down_proj", "neurons"))

    def _required(self, name: str, units: str) -> nn.Module:
        module: nn.Module | None = getattr(self, name)
        if module is None:
            raise ModelError(
                f"Block {self.layer} has no {units}: {self.lacks[name]}; leave it out."
            )
        return unwrap(module)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A model taken apart.

    Attributes:
        family: Class name, for example ``"LlamaForCausalLM"``.
        n_layers, d_model, n_heads, n_kv_heads, d_head, d_mlp: As TransformerLens names them; where
            blocks differ, the largest.
        context_length: Longest sequence in tokens.
        model: The whole model, with its unembedding.
        base: The model without it: runs all blocks, computes no logits. It is what ``model`` calls
            with token ids, mask and cache, seen when the model is first run.
        final_norm: Norm after the last block.
        unembed: The unembedding, if there is one.
        blocks: The decoder blocks in order.
        known_by: ``"TransformerLens"`` if one of its adapters knows the family and is right, else
            ``"a traced pass"``.
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
    known_by: str

    @property
    def has_resid_mid(self) -> bool:
        """Whether every block has one; none has that adds one sublayer only, or two at once."""
        return all(block.mid_reader is not None for block in self.blocks)

    @property
    def causal(self) -> bool:
        """Whether no token sees a later one, so that padding on the right needs no mask."""
        mixers = (unwrap(part.attn) for part in self.blocks if part.attn is not None)
        known = all(part.level != "stream" for part in self.blocks)
        return known and all(getattr(mixer, "is_causal", False) is True for mixer in mixers)

    def width(self, site: Site | str) -> int:
        """Size of the last axis at a site, or at a kind of site in the block that is widest there.

        Raises:
            UnknownNameError: If there is no such kind.
        """
        kind = site if isinstance(site, str) else site.kind
        if kind not in KINDS:
            raise unknown("site", kind, KINDS)
        parts = self.blocks if isinstance(site, str) else (self.blocks[site.layer],)
        if kind == "z":
            return max(part.n_heads * part.d_head for part in parts)
        return max(part.d_mlp for part in parts) if kind == "mlp_post" else self.d_model


def find_anatomy(hf_model: Any) -> Anatomy:
    """Find the parts of a Hugging Face model; the model is only looked at, never changed.

    Only families that TransformerLens knows are found here; see
    `affectlens.models.anatomy.discovery` for the others. What only a forward pass can tell,
    `affectlens.models.anatomy.selfcheck.check_anatomy` adds.

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
    d_mlp = blocks[0].d_mlp
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
                    f"not {wanted[0]} to {wanted[1]} as TransformerLens's adapter expects of the "
                    "family; load the model, and its parts are found without the adapter."
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
        known_by="TransformerLens",
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
    o_proj, down_proj = required(names.o_proj), required(names.down_proj)
    attn_norm, mlp_norm = optional(names.attn_post_norm), optional(names.mlp_post_norm)
    attn = (Term(o_proj if attn_norm is None else attn_norm),)
    added = (Term(down_proj if mlp_norm is None else mlp_norm),)
    before = (Term(None), *attn)
    return BlockParts(
        layer=layer,
        block=block,
        attn=required(names.attn),
        mlp=mlp,
        o_proj=o_proj,
        down_proj=down_proj,
        attn_post_norm=attn_norm,
        mlp_post_norm=mlp_norm,
        mid_reader=None if names.parallel else mid,
        attn_adds=attn,
        mlp_adds=added,
        mid_sum=() if names.parallel else before,
        post_sum=(*before, *added),
        n_heads=names.n_heads,
        lacks={"mid_reader": PARALLEL} if names.parallel else {},
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


def inputs(module: nn.Module | None) -> int:
    """How many values a linear module takes; 0 if there is none."""
    return 0 if module is None else (shape_in_out(unwrap(module)) or (0, 0))[0]


def _shape_in_out(module: nn.Module, family: str) -> tuple[int, int]:
    found = shape_in_out(unwrap(module))
    if found is None:
        raise ModelError(
            f"{family}: an output projection is no linear module ({type(unwrap(module)).__name__})."
        )
    return found
