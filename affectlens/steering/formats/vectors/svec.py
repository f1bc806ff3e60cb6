"""``.svec`` files: JSON with a list of numbers per layer id.

Two readers mean two things by a layer id. CAST (IBM/activation-steering, and the control of that
name in AISteer360) adds the vector to the *input* of layer N, one block before it was measured;
CAA of AISteer360 adds it to the *output* of layer N, of one layer alone. Hence two formats.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import torch

from affectlens.core import ArtefactError, DataError
from affectlens.core.artefact import read_json, write_json
from affectlens.steering.formats.vectors.vector_format import (
    BlockVectors,
    PerBlock,
    VectorFile,
    VectorFormat,
    damaged,
    existing,
    gathered,
    vector_of,
)

_ID = re.compile(r"\d{1,6}")


def _write(content: BlockVectors, path: Path, shift: int) -> None:
    ids = {block + shift: vector for block, vector in content.vectors.items()}
    write_json(
        path,
        {
            "model_type": content.model_name or "unknown",
            "directions": {str(n): vector.tolist() for n, vector in ids.items()},
            "explained_variances": dict.fromkeys(map(str, ids), 1.0),
        },
    )


def _read(path: Path) -> PerBlock:
    """By layer id."""
    existing(path)
    try:
        data: Any = read_json(path)
    except RecursionError as error:
        raise damaged(path, error) from error
    directions: Any = data.get("directions") if isinstance(data, dict) else None
    if not isinstance(directions, dict):
        raise ArtefactError(f"{path} is no .svec file: it has no directions by layer.")
    found: dict[int, torch.Tensor] = {}
    for name, numbers in cast("dict[str, Any]", directions).items():
        if not _ID.fullmatch(name):
            raise ArtefactError(f"{path}: {name!r} is no layer id.")
        try:
            vector = torch.tensor(numbers, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise damaged(path, error) from error
        if vector.ndim == 2 and len(vector) == 1:
            vector = vector[0]
        if vector.ndim != 1:
            raise ArtefactError(
                f"{path}: layer {name} has shape {list(vector.shape)}; only one vector for all "
                "tokens and heads can be read."
            )
        found[int(name)] = vector_of(path, f"layer {name}", vector)
    return found


def check_cast(blocks: Collection[int], n_layers: int) -> None:
    """Refuse what CAST has no place for.

    Raises:
        DataError: If the last block is steered.
    """
    last = n_layers - 1
    if last in blocks:
        raise DataError(
            f"CAST adds vectors before a block, so none after the last one, block {last}; leave "
            f"it out, for example with --layers 0-{last - 1}."
        )


def write_cast(content: BlockVectors, path: Path) -> None:
    """For CAST, which adds to the input of the layer after the block."""
    _write(content, path, 1)


def read_cast(path: Path) -> VectorFile:
    """What CAST would add with all layers of the file.

    Raises:
        ArtefactError: If the file is damaged, or holds more than one vector per layer.
    """
    found = _read(path)
    note = "Layer 0 would be added to the embeddings, where packs do not steer; it was left out."
    shifted = {layer - 1: vector for layer, vector in found.items() if layer}
    return gathered(path, shifted, (note,) if 0 in found and bool(found[0].any()) else ())


def write_caa(content: BlockVectors, path: Path) -> None:
    """For CAA, which adds to the output of a layer."""
    _write(content, path, 0)


def read_caa(path: Path) -> VectorFile:
    """What CAA would add.

    Raises:
        ArtefactError: If the file is damaged, or holds more than one vector per layer.
    """
    return gathered(path, _read(path))


SVEC = VectorFormat(
    "svec",
    "CAST (activation-steering, AISteer360): layer N is added before block N, so after block N-1",
    ".svec",
    "CAST steers every token, the prompt's too",
    lambda block: f"layer {block + 1}",
    write_cast,
    read_cast,
    check=check_cast,
)
SVEC_CAA = VectorFormat(
    "svec-caa",
    "CAA of AISteer360: layer N is added after block N, counted from 0, one layer at a time",
    ".svec",
    "CAA steers those that its token scope names",
    "layer {}".format,
    write_caa,
    read_caa,
    one_at_a_time=True,
)
