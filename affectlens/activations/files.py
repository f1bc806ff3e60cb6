"""Array files: one safetensors file per site and position, filled in place and read by mmap.

The format is simple enough to preallocate: eight bytes with the length of a JSON header, the
header, the numbers. So rows go to disk as they are computed and memory does not grow with the
corpus. Any safetensors reader can open the files; the tensor is called ``"x"``.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectlens.core.artefact import read_header
from affectlens.core.errors import ArtefactError, unknown

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# numpy has no bfloat16: its bits travel as uint16.
_NUMPY = {"float32": np.float32, "bfloat16": np.uint16, "float16": np.float16}
_FORMAT = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_TENSOR = "x"


def torch_dtype(name: str) -> torch.dtype:
    """The dtype of a name in :data:`DTYPES`.

    Raises:
        UnknownNameError: If it is not one of them.
    """
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return DTYPES[name]


def create(path: Path, shape: tuple[int, int], dtype: str, header: Mapping[str, Any]) -> Tensor:
    """Make a file of zeros and map it for writing.

    Args:
        path: Must not exist yet.
        shape: Rows, width.
        dtype: Name in :data:`DTYPES`.
        header: Our JSON header, as `affectlens.core.artefact.read_header` reads it.

    Returns:
        A tensor whose memory is the file.

    Raises:
        OSError: If the disk has no room (the space is reserved here, not when rows come).
    """
    size = shape[0] * shape[1] * DTYPES[dtype].itemsize
    tensor = {"dtype": _FORMAT[dtype], "shape": list(shape), "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": {"affectlens": json.dumps(header)}, _TENSOR: tensor})
    encoded = text.encode() + b" " * (-len(text.encode()) % 8)
    with path.open("xb") as handle:
        handle.write(len(encoded).to_bytes(8, "little") + encoded)
        handle.flush()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle.fileno(), handle.tell(), max(size, 1))
        handle.truncate(8 + len(encoded) + size)
    return _torch(_map(path, 8 + len(encoded), shape, dtype, "r+"), dtype)


def open_array(path: Path, shape: tuple[int, int], dtype: str) -> np.ndarray[Any, Any]:
    """Map the numbers of a file, read-only; bfloat16 comes as its bits (uint16).

    Raises:
        ArtefactError: If the file is missing, cut short, or of another shape.
    """
    return _map(path, _offset(path, shape, dtype), shape, dtype, "r")


def open_tensor(path: Path, shape: tuple[int, int], dtype: str) -> Tensor:
    """The same as a tensor; changing it does not change the file.

    Raises:
        ArtefactError: As `open_array`.
    """
    return _torch(_map(path, _offset(path, shape, dtype), shape, dtype, "c"), dtype)


def _offset(path: Path, shape: tuple[int, int], dtype: str) -> int:
    from safetensors import safe_open

    read_header(path, "activations")
    with safe_open(path, framework="np") as handle:
        found = handle.get_slice(_TENSOR) if _TENSOR in handle.keys() else None  # noqa: SIM118
        facts = (list(found.get_shape()), found.get_dtype()) if found is not None else None
    if facts != (list(shape), _FORMAT[dtype]):
        raise ArtefactError(
            f"{path} does not hold {shape[0]} rows of {shape[1]} {dtype} numbers, as the manifest "
            "says; capture again."
        )
    with path.open("rb") as handle:
        return 8 + int.from_bytes(handle.read(8), "little")


def _map(path: Path, offset: int, shape: tuple[int, int], dtype: str, mode: Any) -> Any:
    if 0 in shape:
        return np.zeros(shape, _NUMPY[dtype])
    return np.memmap(path, dtype=_NUMPY[dtype], mode=mode, offset=offset, shape=shape)


def _torch(mapped: np.ndarray[Any, Any], dtype: str) -> Tensor:
    return torch.from_numpy(mapped).view(DTYPES[dtype])


@dataclass(frozen=True, eq=False)
class StoredArray:
    """One array, in memory or in a file that is mapped when asked for."""

    shape: tuple[int, int]
    dtype: str
    path: Path | None = None
    value: Tensor | None = None
    sha256: str = ""

    @classmethod
    def of_tensor(cls, value: Tensor) -> StoredArray:
        """Wrap a tensor of one of the dtypes of `DTYPES`."""
        names = {dtype: name for name, dtype in DTYPES.items()}
        n, width = value.shape
        return cls((n, width), names[value.dtype], value=value)

    def tensor(self) -> Tensor:
        """The numbers as a tensor; of a file, a private map of it."""
        if self.value is not None:
            return self.value
        assert self.path is not None
        return open_tensor(self.path, self.shape, self.dtype)

    def array(self) -> np.ndarray[Any, Any]:
        """The numbers as an array (float32 where numpy has no such dtype)."""
        if self.dtype == "bfloat16":
            return self.tensor().float().numpy()
        if self.value is not None:
            return self.value.numpy()
        assert self.path is not None
        return open_array(self.path, self.shape, self.dtype)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # systems that do not open folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_error(path: Path, error: OSError) -> ArtefactError:
    """The sentence for a folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ArtefactError(f"No space left to write {path}; free some disk and run it again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ArtefactError(f"May not write {path}; choose a folder you can write to.")
    return ArtefactError(f"Could not write {path}: {error.strerror or error}.")
