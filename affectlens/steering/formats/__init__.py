"""What a steering pack is written as and read from, told by the ending of the file."""

from __future__ import annotations

from pathlib import Path

from affectlens.core.registry import Registry
from affectlens.steering.formats.format import PackFormat
from affectlens.steering.formats.safetensors import SAFETENSORS

FORMATS: Registry[PackFormat] = Registry("pack format", SAFETENSORS)
"""Every format of packs; the first is that of files with any other ending."""


def format_of(path: Path) -> PackFormat:
    """The format that a file's ending names."""
    rows = tuple(FORMATS.values())
    return next((row for row in rows if path.suffix == row.ending), rows[0])


__all__ = ["FORMATS", "PackFormat", "format_of"]
