"""Files of measured arrays in which a number may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affectlens.core.artefact import Provenance, read_tensors, write_tensors
from affectlens.core.errors import ArtefactError

_MISSING = ".missing"


def write_arrays(
    path: str | Path,
    arrays: Mapping[str, np.ndarray[Any, Any]],
    facts: Mapping[str, Any],
    provenance: Provenance,
) -> None:
    """Write arrays and facts; what is missing (NaN) is marked, since files hold no NaN.

    Raises:
        ArtefactError: If the file cannot be written.
    """
    tensors = dict[str, torch.Tensor]()
    for name, values in arrays.items():
        gone = np.isnan(values)
        tensors[name] = torch.from_numpy(np.where(gone, 0.0, values))
        if gone.any():
            tensors[name + _MISSING] = torch.from_numpy(gone)
    write_tensors(Path(path), tensors, provenance, facts)


def read_arrays(
    path: str | Path, kind: str, names: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any], Provenance]:
    """Arrays, facts and provenance of a file of `write_arrays`.

    Raises:
        ArtefactError: If the file is missing or damaged.
        MismatchError: If it is another kind of artefact.
    """
    file = read_tensors(Path(path), kind)
    found = dict[str, Any]()
    for name in names:
        if name not in file.tensors:
            raise ArtefactError(f"{path} is damaged (no {name}); measure it again.")
        found[name] = file.tensors[name].numpy()
        if name + _MISSING in file.tensors:
            found[name][file.tensors[name + _MISSING].numpy()] = np.nan
    return found, file.extra, file.provenance
