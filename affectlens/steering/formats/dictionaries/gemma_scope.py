"""Gemma Scope's files: ``layer_20/width_16k/average_l0_71/params.npz`` with ``W_dec`` [d_sae, d].

They say nothing of themselves; the layer is in the name of a folder. Residual dictionaries are of
the output of the block, those of MLPs and transcoders write what is added to it in the same block.
"""

from __future__ import annotations

import math
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from affectlens.core import ArtefactError, DataError
from affectlens.steering.formats.dictionaries.dictionary import (
    OF_NO_MODEL,
    DictionaryFormat,
    Feature,
    require_alive,
    require_feature,
)
from affectlens.steering.formats.vectors.vector_format import damaged, existing, vector_of

_LAYER = re.compile(r"layer_(\d{1,6})")
_OF_HEADS = re.compile(r"gemma-scope.*-att(-|$)")
"""Folders of attention's dictionaries, such as ``gemma-scope-2b-pt-att-canonical``."""
_MOST_PACKED = 16
"""Decoder weights are packed to no less than one part in so many; what claims more is no such
file."""


def read(path: Path, index: int) -> Feature:
    """One feature; of a large file nothing but its row is kept.

    Args:
        path: The ``.npz`` file.
        index: Number of the feature, from 0.

    Raises:
        ArtefactError: If the file is missing, damaged, or nothing of the kind.
        DataError: If there is no such feature, or it is of heads.
    """
    existing(path)
    if any(_OF_HEADS.search(part) for part in path.resolve().parts):
        raise DataError(f"{path} is of attention's heads, which is no place packs add features.")
    try:
        with zipfile.ZipFile(path) as archive, archive.open("W_dec.npy") as file:
            row = _row(path, file, index)
    except KeyError as error:
        raise ArtefactError(f"{path} holds no W_dec, so it is none of Gemma Scope.") from error
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise damaged(path, error) from error
    vector = vector_of(path, f"feature {index}", torch.from_numpy(row))
    require_alive(path, index, vector)
    parts = path.absolute().parts  # what is downloaded may be a link to a file without such folders
    found = [int(match[1]) for part in parts if (match := _LAYER.fullmatch(part))]
    return Feature(vector, found[-1] if found else None, notes=(OF_NO_MODEL,))


def _row(path: Path, file: IO[bytes], index: int) -> np.ndarray[Any, Any]:
    """A row of the array in a ``.npy`` file, which is never unpickled."""
    version = np.lib.format.read_magic(file)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if header is None:
        raise ArtefactError(f"{path} holds an array of a version that is not known ({version}).")
    shape, by_column, kind = header(file)
    if kind.hasobject or kind.kind != "f" or len(shape) != 2 or by_column:
        raise ArtefactError(f"W_dec of {path} is no table of numbers, feature by feature.")
    if math.prod(shape) * kind.itemsize > _MOST_PACKED * path.stat().st_size:
        raise damaged(path, f"W_dec claims shape {list(shape)}")
    require_feature(path, index, shape[0])
    size = shape[1] * kind.itemsize
    file.seek(file.tell() + index * size)
    content = file.read(size)
    if len(content) < size:
        raise damaged(path, "W_dec is cut short")
    return np.frombuffer(content, kind).astype(np.float32)


GEMMA_SCOPE = DictionaryFormat(
    "gemma-scope", "Gemma Scope: params.npz in a folder layer_N (else give --layers N)", read
)
