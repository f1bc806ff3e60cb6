"""Finished fits on disk: what was fitted is not fitted again, whatever stopped the sweep.

A fit is known by all that decides it: the activations, what is read of each row, folds, probe and
penalties. It is written whole or not at all, so a file that is there is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from affectlens.core.artefact import (
    Provenance,
    fingerprint,
    package_version,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from affectlens.core.errors import ArtefactError
from affectlens.core.places import Site
from affectlens.probes.crossval import Scored

FITS = "fits"
VERSION = 1
"""Goes up whenever the same key would give other numbers."""


@dataclass(frozen=True)
class KeptFits:
    """Finished sites of one sweep; see `affectlens.probes.fitting.Kept`.

    Attributes:
        folder: Of the whole.
        key: Of this sweep.
    """

    folder: Path
    key: str

    def get(self, site: Site) -> Scored | None:
        """What was kept of a site; None if nothing is, or it cannot be read."""
        try:
            file = read_tensors(self._file(site), "fit")
            if file.provenance.parameters.get("key") != self.key:
                return None
            parts = {one.name: file.tensors[one.name] for one in fields(Scored)}
        except (ArtefactError, KeyError):
            return None
        return Scored(**{**parts, "converged": parts["converged"].bool()})

    def put(self, site: Site, scored: Scored) -> None:
        """Keep a site.

        Raises:
            ArtefactError: If it cannot be written.
        """
        parts = {one.name: getattr(scored, one.name) for one in fields(Scored)}
        parts["converged"] = parts["converged"].float()
        write_tensors(self._file(site), parts, Provenance("fit", parameters={"key": self.key}))

    def _file(self, site: Site) -> Path:
        return self.folder / FITS / self.key / f"{site.hook_name}.safetensors"


def key_of(**parts: Any) -> str:
    """Of all that decides a result, and of the version of what makes it."""
    return fingerprint(VERSION, package_version(), parts)


@dataclass(frozen=True)
class KeptRows:
    """Finished tables (of controls, of a transfer), by key."""

    folder: Path

    def get(self, key: str) -> list[dict[str, Any]] | None:
        """Rows that were kept; None if there are none."""
        try:
            found = read_json(self._file(key))
            return [dict(row) for row in found["rows"]] if found["key"] == key else None
        except (ArtefactError, KeyError, TypeError):
            return None

    def put(self, key: str, rows: list[Mapping[str, Any]]) -> None:
        """Keep rows.

        Raises:
            ArtefactError: If they cannot be written.
        """
        write_json(self._file(key), {"key": key, "rows": [dict(row) for row in rows]})

    def _file(self, key: str) -> Path:
        return self.folder / FITS / f"{key}.json"
