"""EasySteer's GGUF files, for its algorithm ``direct`` (ZJU-REAL/EasySteer, extraction/result.py).

``direction.N`` is added to the output of decoder layer N, counted from 0; layer 0 may be there.
"""

from __future__ import annotations

import json
from pathlib import Path

from affectlens.core import ArtefactError
from affectlens.steering.formats.vectors.gguf_file import (
    ARCHITECTURE,
    read_directions,
    write_directions,
)
from affectlens.steering.formats.vectors.vector_format import (
    BlockVectors,
    VectorFile,
    VectorFormat,
    damaged,
    gathered,
)

_COMPONENT = "hidden_states"


def write(content: BlockVectors, path: Path) -> None:
    """One tensor per block, and the metadata that makes it a vector of hidden states."""
    told = {"mapping": [["request", content.request], ["model", content.model_name]]}
    native = {"version": 1, "component": _COMPONENT, "metadata": told}
    text = json.dumps(native, separators=(",", ":"), ensure_ascii=False)
    write_directions(content, path, method="affectlens", easysteer=text)


def read(path: Path) -> VectorFile:
    """What EasySteer would add at scale 1 with all layers of the file.

    Raises:
        ArtefactError: If it holds no vectors of hidden states.
    """
    found = read_directions(path)
    native = found.fields.get(f"{ARCHITECTURE}.easysteer")
    if native is not None:
        try:
            component = json.loads(native)["component"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged(path, error) from error
        if component not in (None, _COMPONENT):
            raise ArtefactError(
                f"{path} holds vectors of {component}, which are not added after a block; only "
                f"those of {_COMPONENT} can be read."
            )
    return gathered(path, found.vectors)


EASYSTEER = VectorFormat(
    "easysteer",
    "EasySteer, algorithm direct: direction.N is added after block N, counted from 0",
    ".gguf",
    "EasySteer steers those that its apply option names",
    "direction.{}".format,
    write,
    read,
)
