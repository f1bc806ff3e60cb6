"""The vectors of methods, made once and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core.artefact import fingerprint
from affectlens.core.errors import DataError
from affectlens.steering.methods import Material, Method

if TYPE_CHECKING:
    from affectlens.steering import SteeringPack


@dataclass(frozen=True, eq=False)
class KeptPacks:
    """Makes the packs of methods, or reads those that were made of the same material.

    Attributes:
        material: What vectors are made of.
        folder: Where packs lie.
        made_by: What else they depend on: versions, number format.
    """

    material: Material
    folder: Path
    made_by: str

    def file(self, method: Method) -> Path:
        """Where the pack of a method lies."""
        key = fingerprint(method.name, self.material.fingerprint, self.made_by)
        return self.folder / f"{method.name}-{key}.safetensors"

    def of(self, method: Method) -> SteeringPack | None:
        """The pack of a method; None if it steers nothing.

        Raises:
            DataError: If the model lacks what the method steers, or its pack has another mode.
            ArtefactError: If a file is damaged.
        """
        from affectlens.steering import SteeringPack

        if method.vectors is None:
            return None
        file = self.file(method)
        if file.is_file():
            return SteeringPack.load(file, self.material.model)
        pack = method.vectors(self.material)
        if pack.modes != (method.mode,):
            raise DataError(
                f"The method {method.name} is to steer in mode {method.mode}, but its pack has "
                f"{', '.join(pack.modes)}."
            )
        pack.save(file)
        return pack
