"""A shard's file: which bytes hold which rows.

A safetensors file is eight bytes with the length of a JSON header, the header, the numbers. Ours
follows from what the manifest says (sites, rows, dtype), so where a tensor lies is computed, and a
file with another header is not the one that was written. Tensors are called
``<position>/<hook name>``; of ``int8``, ``<that>/row_scale`` and ``<that>/column_scale`` go along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from affectlens.activations.store.folder import Bytes
from affectlens.core.errors import unknown
from affectlens.core.places import Site

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}
"""What numbers can be stored as, and the dtype of the bytes."""

_FORMAT = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int8: "I8",
}
ROW_SCALE, COLUMN_SCALE = "row_scale", "column_scale"


def torch_dtype(name: str) -> torch.dtype:
    """The dtype rows are read in (``int8`` stands for float32 rows).

    Raises:
        UnknownNameError: If the name is not in :data:`DTYPES`.
    """
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return torch.float32 if name == "int8" else DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a floating dtype that can be stored.

    Raises:
        UnknownNameError: If it cannot.
    """
    names = {value: name for name, value in DTYPES.items() if value.is_floating_point}
    if dtype not in names:
        raise unknown("dtype", str(dtype).removeprefix("torch."), names.values())
    return names[dtype]


def tensor_name(site: Site, position: str) -> str:
    """What the rows of a site and position are called in a file."""
    return f"{position}/{site.hook_name}"


@dataclass(frozen=True)
class Part:
    """One tensor of a file.

    Attributes:
        shape: Rows and width; one number for scales.
        dtype: Of its bytes.
        start: Its first byte, counted from the first after the header.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    start: int

    @property
    def stop(self) -> int:
        """One past its last byte."""
        size = self.dtype.itemsize
        for n in self.shape:
            size *= n
        return self.start + size

    def of(self, data: Bytes) -> Tensor:
        """The tensor, as a view of the bytes after the header."""
        return view(data[self.start : self.stop], self.shape, self.dtype)


def view(data: Bytes, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Bytes as a tensor, without a copy."""
    return torch.from_numpy(data).view(dtype).view(shape)


def parts(widths: Mapping[Site, int], rows: Mapping[str, int], dtype: str) -> dict[str, Part]:
    """The tensors of a shard, in the order of their bytes.

    Args:
        widths: Sites, with their width.
        rows: Rows of each position in this shard; positions without rows have no tensor.
        dtype: Name in :data:`DTYPES`.
    """
    held = [(position, n) for position, n in rows.items() if n]
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    for position, n in held if dtype == "int8" else ():  # four bytes wide: before the single bytes
        for site, width in widths.items():
            name = tensor_name(site, position)
            shapes[f"{name}/{ROW_SCALE}"] = ((n,), torch.float32)
            shapes[f"{name}/{COLUMN_SCALE}"] = ((width,), torch.float32)
    for position, n in held:
        for site, width in widths.items():
            shapes[tensor_name(site, position)] = ((n, width), DTYPES[dtype])
    found: dict[str, Part] = {}
    start = 0
    for name, (shape, kind) in shapes.items():
        found[name] = Part(shape, kind, start)
        start = found[name].stop
    return found


def data_size(found: Mapping[str, Part]) -> int:
    """Bytes after the header."""
    return max((part.stop for part in found.values()), default=0)


def file_header(found: Mapping[str, Part], fingerprint: str, shard: int) -> bytes:
    """Everything before the numbers.

    Args:
        found: From `parts`.
        fingerprint: Of the store's provenance.
        shard: Its number in the store.
    """
    made_by = json.dumps({"store": fingerprint, "shard": shard})
    header: dict[str, Any] = {"__metadata__": {"affectlens": made_by}}
    for name, part in found.items():
        header[name] = {
            "dtype": _FORMAT[part.dtype],
            "shape": list(part.shape),
            "data_offsets": [part.start, part.stop],
        }
    return _encoded(header)


def tensor_header(name: str, shape: tuple[int, int], dtype: torch.dtype, made_by: str) -> bytes:
    """The same for a file of one tensor, ``made_by`` being our header as JSON."""
    tensor = {"dtype": _FORMAT[dtype], "shape": list(shape)}
    size = shape[0] * shape[1] * dtype.itemsize
    return _encoded(
        {"__metadata__": {"affectlens": made_by}, name: {**tensor, "data_offsets": [0, size]}}
    )


def _encoded(header: Mapping[str, Any]) -> bytes:
    """A header as a safetensors file begins with it."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
