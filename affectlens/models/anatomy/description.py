"""What a model is made of, without loading its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affectlens.core.errors import ModelError
from affectlens.models import registry
from affectlens.models.adapters import base_of, is_adapter_folder
from affectlens.models.anatomy.anatomy import find_anatomy
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
        hf: Any = auto_class(config).from_config(config)
    try:
        anatomy = find_anatomy(hf)
    except ModelError:  # no adapter: only a pass over its weights can tell
        anatomy = load_model(source).anatomy
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
        **{f"layers {layers}": f"{level}: {what}" for layers, level, what in levels(anatomy)},
    }
