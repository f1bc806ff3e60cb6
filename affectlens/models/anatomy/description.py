"""What a model is made of, without loading its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affectlens.core.errors import ModelError
from affectlens.models import registry
from affectlens.models.adapters import base_of, is_adapter_folder
from affectlens.models.anatomy.anatomy import Anatomy, find_anatomy
from affectlens.models.anatomy.discovery import discover
from affectlens.models.anatomy.levels import levels


def describe(source: str) -> dict[str, Any]:
    """Anatomy, dtype, size and whether it is at hand, for `load_model`'s names and paths.

    Nothing is fetched for built-in models; a hub id fetches its config only.

    Raises:
        UnknownNameError, ModelError: As `affectlens.models.loading.load_model`.
    """
    about: dict[str, Any] = {"name": source, "cached": True}
    if note := registry.weights_note(source):
        about["weights"] = note
    if source in registry.BUILTIN:
        info = next(info for info in registry.list_models() if info.name == source)
        about |= {
            "kind": info.kind,
            "licence": info.licence,
            "download_bytes": info.download_bytes,
            "kept_bytes": info.kept_bytes,
            "cached": info.cached,
            "path": str(info.path),
        }
        if not info.cached or info.kind != "language model":
            return about | dict(registry.BUILTIN[source].facts)
        source = str(info.path)
    if is_adapter_folder(source):
        about |= {"kind": "adapter", "base": base_of(Path(source))}
        source = str(about["base"])
    return about | _anatomy_facts(source)


def anatomy_without_weights(hf: Any) -> Anatomy | None:
    """The parts of a model on PyTorch's meta device; None if only its weights can tell.

    A pass without values tells what is added to what. What needs values is left to the weights:
    blocks that scale by a stored number, routers that look at what they chose.

    Args:
        hf: The model, with eager attention, in bfloat16.
    """
    try:
        return find_anatomy(hf)
    except ModelError:  # no adapter knows it
        pass
    for told in _TOLD:
        try:
            found = discover(hf, **told)
        except (ModelError, NotImplementedError, RuntimeError):
            continue
        if all(part.level != "stream" for part in found.blocks):
            return found
    return None


_TOLD: tuple[dict[str, Any], ...] = (
    {},
    {"attention_mask": None},
    {"attention_mask": None, "use_cache": True},
)
"""Some models look at the values of the mask, some at positions if there is no mask or cache."""


def _anatomy_facts(source: str) -> dict[str, Any]:
    import torch

    from affectlens.models.configs import auto_class, read_config
    from affectlens.models.loading import load_model
    from affectlens.models.reading_errors import one_sentence
    from affectlens.models.sources import locate

    where = locate(source)
    path = Path(where)
    config = read_config(where)
    with one_sentence(source), torch.device("meta"):
        # Other attention looks at the values of its mask, which are none here; experts that are
        # multiplied in groups take 16 bits alone.
        hf: Any = auto_class(config).from_config(
            config, attn_implementation="eager", dtype=torch.bfloat16
        )
        hf.eval()
    anatomy = anatomy_without_weights(hf)
    if anatomy is None:
        anatomy, told_by = load_model(source).anatomy, "its weights"
    else:
        told_by = f"its config; `affectlens models check {source}` proves it on its weights"
    numbers = ("family", "n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_mlp")
    facts: dict[str, Any] = {name: getattr(anatomy, name) for name in numbers}
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    return facts | {
        "resid_mid": anatomy.has_resid_mid,
        "post_norms": anatomy.blocks[0].attn_post_norm is not None,
        "vocabulary": int(hf.get_input_embeddings().weight.shape[0]),
        "context_length": anatomy.context_length,
        "parameters": sum(p.numel() for p in hf.parameters()),
        "dtype": str(config.dtype or "float32").removeprefix("torch."),
        "weight_bytes": sum(file.stat().st_size for file in files) or None,
        "known_by": anatomy.known_by,
        "told_by": told_by,
        **{f"layers {layers}": f"{level}: {what}" for layers, level, what in levels(anatomy)},
    }
