"""Our own format: one safetensors file with all that a pack holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core.artefact import read_tensors, write_tensors
from affectlens.steering.formats.format import PackFormat
from affectlens.steering.pack_file import facts_of, fields_of, tensors_of

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack


def write(pack: SteeringPack, path: Path) -> None:
    """Tensors, and the facts beside them in the header."""
    write_tensors(path, tensors_of(pack), pack.provenance, facts_of(pack))


def read(path: Path) -> Mapping[str, Any]:
    """Inverse of `write`.

    Raises:
        ArtefactError: If the file is missing, cut short, of a newer version, or holds NaN.
        MismatchError: If it is no pack.
    """
    return fields_of(read_tensors(path, "pack"))


SAFETENSORS = PackFormat(
    "safetensors", "all that a pack holds, with what made it", ".safetensors", write, read
)
