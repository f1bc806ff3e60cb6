"""What a user calls a model, and how its weights are read from there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from affectlens.core.errors import DataError, ModelError, UnknownNameError, closest_first
from affectlens.models import registry
from affectlens.models.adapters import base_of, is_adapter_folder, with_adapter
from affectlens.models.chat.tokenizers import read_tokenizer
from affectlens.models.weights import from_gguf, from_pretrained

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``owner/name`` and is no folder here."""
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def locate(source: str | Path) -> str:
    """What `load_model` reads for a name or path: a folder, a GGUF file or a hub id.

    Raises:
        UnknownNameError: If it is none of these and not built in.
        ModelError: If it is a file of another kind.
    """
    name = str(source)
    if isinstance(source, str) and name in registry.BUILTIN:
        return str(registry.resolve(name))
    path = Path(source).expanduser()
    if path.suffix == ".gguf" or path.is_dir():
        return str(path)
    if path.is_file():
        raise ModelError(f"{path} is neither a model folder nor a .gguf file.")
    if isinstance(source, str) and _HUB_ID.fullmatch(name):
        return name
    known = ", ".join(closest_first(name, registry.language_models()))
    raise UnknownNameError(
        f"Unknown model {name!r}; built in: {known}; or give a Hugging Face hub id (owner/name), "
        "a local folder or a .gguf file."
    )


@dataclass(frozen=True)
class Reading:
    """How weights are read.

    Attributes:
        dtype, device: Of the weights.
        with_tokenizer: Whether the tokenizer is wanted.
        options: What transformers is told besides.
    """

    dtype: torch.dtype
    device: torch.device
    with_tokenizer: bool
    options: Mapping[str, Any]


def read_model(source: str | Path, like: Reading) -> tuple[Any, Any]:
    """The Hugging Face model that a name or path stands for, and its tokenizer if wanted.

    Raises:
        UnknownNameError, ModelError: As `affectlens.models.loading.load_model`.
    """
    where = locate(source)
    if where.endswith(".gguf"):
        hf, tokenizer = from_gguf(Path(where), like.dtype)
        return hf.to(like.device), tokenizer
    if not is_adapter_folder(where):
        return from_pretrained(
            where,
            like.dtype,
            like.device,
            with_tokenizer=like.with_tokenizer,
            options=like.options,
        )
    folder = Path(where)
    own = like.with_tokenizer and (folder / "tokenizer_config.json").is_file()
    tokenizer = read_tokenizer(where) if own else None
    base = base_of(folder)
    try:
        hf, of_base = read_model(
            base, replace(like, with_tokenizer=like.with_tokenizer and not own)
        )
    except UnknownNameError as error:
        raise ModelError(
            f"{folder} is an adapter for {base}, which is not here; load that model, put the "
            "adapter in with peft (PeftModel.from_pretrained), and pass the object."
        ) from error
    return with_adapter(hf, folder), tokenizer or of_base


def check_options(source: Any, options: Mapping[str, Any], device: Any) -> None:
    """Refuse options that do not go together with each other or with what is loaded.

    Raises:
        DataError: If they do not.
    """
    if "device_map" in options and device is not None:
        raise DataError("Give device for one device or device_map for several, not both.")
    if not options:
        return
    what = " and ".join(sorted(options))
    if not isinstance(source, (str, Path)):
        raise DataError(f"This model is loaded already; {what} are for loading it by name or path.")
    if str(source).endswith(".gguf"):
        raise DataError(
            f"A GGUF file is unpacked as a whole, so {what} cannot be used with it; give a folder "
            "of safetensors or a hub id."
        )
