"""PyTorch's ``.pt`` files, read without running what they pickle."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from affectlens.core import ArtefactError
from affectlens.core.artefact import atomic_write
from affectlens.steering.formats.vectors.vector_format import damaged, existing


def write_pt(value: Any, path: Path) -> None:
    """Write tensors and plain values, atomically."""
    import torch

    atomic_write(path, lambda temporary: torch.save(value, temporary))


def read_pt(path: Path) -> Any:
    """Tensors and plain values of a file.

    Raises:
        ArtefactError: If the file is missing, damaged, or holds anything else, which is not run.
    """
    import torch

    existing(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtefactError(
            f"{path} holds more than tensors, or is damaged; nothing of it was run. Have it saved "
            "as a plain tensor, or as a dict of tensors."
        ) from error
    except Exception as error:  # torch has no class of its own for files that are cut short
        raise damaged(path, error) from error
