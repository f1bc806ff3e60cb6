"""A plain safetensors file: tensors by TransformerLens hook name, which says the place itself."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from affectlens.core import ArtefactError
from affectlens.core.artefact import atomic_write
from affectlens.steering.formats.vectors.vector_format import (
    BlockVectors,
    VectorFile,
    VectorFormat,
    damaged,
    existing,
    gathered,
    hook_name,
    vector_of,
)

_NAME = re.compile(r"blocks\.(\d{1,6})\.hook_resid_post")


def write(content: BlockVectors, path: Path) -> None:
    """One tensor per block; what they are stands in the header."""
    from safetensors.torch import save_file

    tensors = {
        hook_name(block): vector.detach().cpu().to(torch.float32).contiguous().clone()
        for block, vector in content.vectors.items()
    }
    header = {
        "request": content.request,
        "model": content.model_name,
        "model_fingerprint": content.model,
        "n_layers": str(content.n_layers),
    }
    atomic_write(path, lambda temporary: save_file(tensors, temporary, metadata=header))


def read(path: Path) -> VectorFile:
    """Inverse of `write`, for files of others too.

    Raises:
        ArtefactError: If the file is damaged, or names a tensor otherwise.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    existing(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from error
    found: dict[int, torch.Tensor] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise ArtefactError(
                f"{path} holds a tensor {name}; vectors are named blocks.N.hook_resid_post."
            )
        found[int(match[1])] = vector_of(path, name, tensor)
    return gathered(path, found)


HOOK_TENSORS = VectorFormat(
    "safetensors",
    "Plain tensors: blocks.N.hook_resid_post is added after block N, counted from 0",
    ".safetensors",
    "its reader chooses them",
    hook_name,
    write,
    read,
)
