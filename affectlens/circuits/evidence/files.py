"""What a test of a circuit measured, and its file: arrays in which a number may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from affectlens.core.artefact import Provenance, read_tensors, write_tensors
from affectlens.core.display import Displayed
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


class Measured(Displayed):
    """A dataclass of arrays and facts that lies in one file (safetensors with a JSON header).

    Attributes:
        kind: Of the artefact.
        arrays: Names of the fields that are arrays.
        facts: Of those that are lists in the header, each with what makes it of the list.
        provenance: What made it.
    """

    kind: ClassVar[str]
    arrays: ClassVar[tuple[str, ...]]
    facts: ClassVar[Mapping[str, Callable[[Any], Any]]]
    provenance: Provenance

    def save(self, path: str | Path) -> None:
        """Write it to one file.

        Raises:
            ArtefactError: If the file cannot be written.
        """
        arrays = {name: getattr(self, name) for name in self.arrays}
        facts = {name: list(getattr(self, name)) for name in self.facts}
        write_arrays(path, arrays, facts, self.provenance)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtefactError: If the file is missing or damaged.
            MismatchError: If it is another kind of artefact.
        """
        arrays, found, provenance = read_arrays(path, cls.kind, cls.arrays)
        try:
            facts = {name: of(found[name]) for name, of in cls.facts.items()}
            values: dict[str, Any] = {**facts, **arrays, "provenance": provenance}
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} is damaged ({error}); measure it again.") from error
