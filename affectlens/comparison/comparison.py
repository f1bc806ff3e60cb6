"""What a comparison found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from affectlens.circuits.units import KINDS
from affectlens.comparison.agreement import CircuitAgreement, DirectionAgreement, ProbeAgreement
from affectlens.core.artefact import write_json
from affectlens.core.display import Displayed


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Displayed):
    """Two models side by side.

    Attributes:
        base, tuned: Names and fingerprints, ``{"name": ..., "fingerprint": ...}``.
        corpus: Name and fingerprint of the texts that both read.
        majority: Probe accuracy of always saying the most frequent emotion: the control.
        held_out: What probes are scored on, in words.
        probes: Of every layer, the embeddings first.
        directions: Of every layer and emotion.
        circuits: Of every kind, layer and emotion, all layers together first; empty if there are
            none.
        no_circuits: Why, in words; empty if there are.
        settings: How it was made.
    """

    base: Mapping[str, str]
    tuned: Mapping[str, str]
    corpus: Mapping[str, str]
    majority: float
    held_out: str
    probes: tuple[ProbeAgreement, ...]
    directions: tuple[DirectionAgreement, ...]
    circuits: tuple[CircuitAgreement, ...]
    no_circuits: str
    settings: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain figures for JSON; what could not be measured is None."""
        return cast("dict[str, Any]", _plain(asdict(self)))

    def save(self, path: str | Path) -> None:
        """Write `to_dict` to a JSON file.

        Raises:
            ArtefactError: If it cannot be written.
        """
        write_json(Path(path), self.to_dict())

    def brief(self) -> dict[str, object]:
        """Both names, mean cosine, and overlap of the circuits beside chance."""
        shown: dict[str, object] = {"base": self.base["name"], "tuned": self.tuned["name"]}
        shown["cosine"] = _two(_mean(one.cosine for one in self.directions))
        for kind in KINDS:
            if any(one.kind == kind for one in self.circuits):
                seen, chance, _ = self.overlap(kind, None)
                shown[kind] = f"{_two(seen)} (chance {_two(chance)})"
        return shown

    def overlap(
        self, kind: str, layer: int | None
    ) -> tuple[float | None, float | None, float | None]:
        """Mean over the emotions of Jaccard index, its mean under chance, and that with others.

        Args:
            kind: ``"heads"`` or ``"neurons"``.
            layer: Which; None for all together.
        """
        there = [one for one in self.circuits if (one.kind, one.layer) == (kind, layer)]
        return (
            _mean(one.jaccard for one in there),
            _mean(one.expected for one in there),
            _mean(one.others for one in there),
        )

    def table_rows(self) -> list[dict[str, object]]:
        """One row a layer: means over the emotions, each beside its control."""
        rows: list[dict[str, object]] = []
        for probe in self.probes:
            found = [one for one in self.directions if one.layer == probe.layer]
            least = min(found, key=lambda one: one.cosine, default=None)
            row: dict[str, object] = {
                "layer": probe.layer,
                "probe_base": probe.base,
                "probe_tuned": probe.tuned,
                "difference": None if probe.difference is None else probe.difference.mean,
                "low": None if probe.difference is None else probe.difference.low,
                "high": None if probe.difference is None else probe.difference.high,
                "transfer": probe.transfer,
                "cosine": _mean(one.cosine for one in found),
                "least": None if least is None else least.cosine,
                "least_of": None if least is None else least.emotion,
                "others": _mean(one.others for one in found),
            }
            for kind in KINDS:
                seen, chance, others = self.overlap(kind, probe.layer)
                row |= {kind: seen, f"{kind}_chance": chance, f"{kind}_others": others}
            rows.append(row)
        return rows


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _plain(value: Any) -> Any:
    """As JSON has it: no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in cast("list[Any]", value)]
    return value
