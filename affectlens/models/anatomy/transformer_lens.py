"""The one place that names TransformerLens: which module of a family plays which part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from affectlens.core.errors import ModelError
from affectlens.core.extras import needed
from affectlens.models.hooking.shared_weights import same_weights


@dataclass(frozen=True)
class PartNames:
    """Dotted module paths on the raw Hugging Face model; block parts are relative to the block.

    Attributes:
        blocks: The list of decoder layers.
        final_norm: The norm after the last block.
        attn, mlp: The sublayers (``""`` if the family keeps the projections on the block itself).
        o_proj, down_proj: ``W_O`` and ``W_down``.
        attn_post_norm, mlp_post_norm: Norms between a sublayer and the residual, if any.
        pre_mlp_norm: The norm that reads the residual in mid-block, if any.
        parallel: Attention and MLP read the same residual; there is no mid-block one.
        n_heads, n_kv_heads, d_head, context_length: As the adapter understands the config.
    """

    blocks: str
    final_norm: str
    attn: str
    mlp: str
    o_proj: str
    down_proj: str
    attn_post_norm: str | None
    mlp_post_norm: str | None
    pre_mlp_norm: str | None
    parallel: bool
    n_heads: int
    n_kv_heads: int
    d_head: int
    context_length: int


def known_family(model_class: type) -> str:
    """The class name, or that of the nearest base class, that TransformerLens has an adapter for.

    Raises:
        ModelError: If there is none, or TransformerLens is not installed.
    """
    needed("transformer_lens", "An adapter for a family")
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory

    ArchitectureAdapterFactory.discover_entry_points()
    adapters = ArchitectureAdapterFactory._adapters  # pyright: ignore[reportPrivateUsage]
    for cls in model_class.__mro__:
        if cls.__name__ in adapters:
            return cls.__name__
    raise ModelError(
        f"TransformerLens has no adapter for the architecture {model_class.__name__}; load the "
        "model and use engine='transformers', which finds its parts without one."
    )


def part_names(config: Any, family: str) -> PartNames:
    """Ask TransformerLens's adapter for a family. Neither builds a bridge nor touches a model.

    Args:
        config: The Hugging Face config of the model.
        family: Its class name, for example ``"LlamaForCausalLM"``.

    Raises:
        ModelError: If there is no adapter, or it has no dense attention and MLP in every block.
    """
    import torch
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.generalized_components import (
        ParallelBlockBridge,
        ScaledResidualBlockBridge,
    )
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

    try:
        lens_config: Any = build_bridge_config_from_hf(config, family, family, torch.float32)
        adapter = ArchitectureAdapterFactory.select_architecture_adapter(lens_config)
        mapping: Any = adapter.get_component_mapping()
    except Exception as error:  # whatever an adapter does with a config it did not expect
        raise ModelError(
            f"TransformerLens's adapter for {family} does not accept this model's config ({error})."
        ) from error
    lens_config = adapter.cfg

    blocks = mapping.get("blocks")
    if blocks is None:
        raise ModelError(f"{family} has no single list of decoder blocks; use a decoder model.")
    parts: dict[str, Any] = dict(blocks.submodules or {})
    if isinstance(blocks, ScaledResidualBlockBridge) and (
        float(getattr(config, "residual_multiplier", 1.0) or 1.0) != 1.0
    ):
        raise ModelError(
            f"{family} scales what its sublayers add to the residual, which affectlens does not "
            "handle; use another family."
        )
    attn, mlp = parts.get("attn"), parts.get("mlp")
    if attn is None or mlp is None or getattr(attn, "optional", False):
        raise ModelError(f"{family} does not have attention and an MLP in every block.")
    o_proj, down_proj = (attn.submodules or {}).get("o"), (mlp.submodules or {}).get("out")
    if o_proj is None or down_proj is None or getattr(down_proj, "optional", False):
        which = "attention output projection" if o_proj is None else "dense MLP output projection"
        raise ModelError(
            f"{family} has no single {which} per block (a mixture of experts, for example); "
            "affectlens needs one to tell heads and neurons apart."
        )

    def name(part: str) -> str | None:
        component = parts.get(part)
        return None if component is None else component.name

    def child(parent: Any, component: Any) -> str:
        return ".".join(n for n in (parent.name, component.name) if n)

    return PartNames(
        blocks=blocks.name or "",
        final_norm=mapping["ln_final"].name if "ln_final" in mapping else "",
        attn=attn.name or "",
        mlp=mlp.name or "",
        o_proj=child(attn, o_proj),
        down_proj=child(mlp, down_proj),
        attn_post_norm=name("ln1_post"),
        mlp_post_norm=name("ln2_post"),
        pre_mlp_norm=name("ln2"),
        parallel=isinstance(blocks, ParallelBlockBridge),
        n_heads=int(lens_config.n_heads),
        n_kv_heads=int(getattr(lens_config, "n_key_value_heads", None) or lens_config.n_heads),
        d_head=int(lens_config.d_head),
        context_length=int(lens_config.n_ctx),
    )


def unwrap(module: Any) -> Any:
    """The raw module inside a bridge component; any other module as it is."""
    seen = 0
    while seen < 8 and "_original_component" in getattr(module, "_modules", {}):
        module = module._modules["_original_component"]
        seen += 1
    return module


def bridged_model(source: Any) -> tuple[Any, Any] | None:
    """The Hugging Face model and tokenizer under a ``TransformerBridge``; None if it is not one.

    Raises:
        ModelError: If the bridge is in compatibility mode: its weights are folded and centred then,
            and its forward pass leaves the modules we hook.
    """
    if not any(cls.__name__ == "TransformerBridge" for cls in type(source).__mro__):
        return None
    if getattr(source, "compatibility_mode", False):
        raise ModelError(
            "This TransformerBridge is in compatibility mode: its weights are folded and centred; "
            "boot another one and do not call enable_compatibility_mode on it."
        )
    return source.original_model, getattr(source, "tokenizer", None)


def build_bridge(hf: Any) -> Any:
    """A ``TransformerBridge`` over a model's weights, which leaves the model itself alone.

    Families that fuse their query, key and value projections get those split, which costs a copy of
    these weights.

    Raises:
        ModelError: If TransformerLens cannot wrap the model, or is not installed.
    """
    needed("transformer_lens", "engine='transformer_lens'")
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    copy = same_weights(hf)
    family = known_family(type(hf))
    try:
        # Without its tokenizer: TransformerLens would change it.
        bridge = build_bridge_from_module(copy, family, hf_config=copy.config)
    except Exception as error:  # whatever an adapter does with a model it did not expect
        raise ModelError(f"TransformerLens cannot wrap this {family} ({error}).") from error
    return bridge.eval()
