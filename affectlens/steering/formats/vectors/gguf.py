"""llama.cpp's control vectors (``--control-vector``).

``direction.N`` is added to the output of block N, counted from 0: `common_control_vector_load`
puts it at offset ``N - 1`` of a buffer that lacks block 0, and `llama_adapter_cvec::apply` reads
the vector of block ``il`` from offset ``il - 1``. Block 0 has no vector.

repeng numbers alike. ``llama-cvector-generator`` measures after block N and writes
``direction.{N+1}``: what it measured is added one block later, by itself and here.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from affectlens.core import ArtefactError, DataError
from affectlens.steering.formats.vectors.gguf_file import read_directions, write_directions
from affectlens.steering.formats.vectors.vector_format import (
    BlockVectors,
    VectorFile,
    VectorFormat,
    gathered,
)


def check(blocks: Collection[int], n_layers: int) -> None:
    """Refuse what llama.cpp has no place for.

    Raises:
        DataError: If block 0 is steered.
    """
    if 0 in blocks:
        raise DataError(
            "llama.cpp cannot steer block 0; leave it out, for example with --layers "
            f"1-{n_layers - 1}."
        )


def write(content: BlockVectors, path: Path) -> None:
    """One tensor per block."""
    write_directions(content, path)


def read(path: Path) -> VectorFile:
    """What llama.cpp would add with this file at scale 1.

    Raises:
        ArtefactError: If it is none of its control vectors.
    """
    found = read_directions(path)
    if 0 in found.vectors:
        raise ArtefactError(
            f"{path} holds direction.0, which llama.cpp refuses; if EasySteer made it, read it "
            "with --format easysteer."
        )
    note = (
        "llama-cvector-generator made it: direction.N was measured after block N-1 and is added "
        "after block N, as llama.cpp does."
    )
    return gathered(path, found.vectors, (note,) if found.signed_count else ())


GGUF = VectorFormat(
    "gguf",
    "llama.cpp, repeng: direction.N is added after block N, counted from 0; never after block 0",
    ".gguf",
    "llama.cpp steers every token, the prompt's too",
    "direction.{}".format,
    write,
    read,
    check=check,
)
