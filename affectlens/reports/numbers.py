"""The numbers behind a report as JSON, so that it can be drawn again without the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast

from affectlens.circuits.overlap import Overlap
from affectlens.core.artefact import read_json, write_json
from affectlens.core.errors import AffectLensError, ArtefactError
from affectlens.evaluation import ArmMetrics, Comparison, Reply, StrengthPoint
from affectlens.geometry.emotion_map import EmotionMap
from affectlens.plotting import (
    CircuitSummary,
    DirectionsSummary,
    EvidenceSummary,
    SweepSummary,
)
from affectlens.plotting.evidence_summary import ChoiceSummary, CurveSummary, LeftSummary
from affectlens.plotting.studies import StudySummary
from affectlens.plotting.sweeps import DepthCurve, SweepsSummary
from affectlens.reports.data import Example, Header, Heard, ReportData, Tuning

if TYPE_CHECKING:
    from pathlib import Path


def to_dict(data: ReportData) -> dict[str, Any]:
    """JSON-able form; numbers that are not finite become ``None``."""
    return cast("dict[str, Any]", plain(data))


def from_dict(value: Mapping[str, Any]) -> ReportData:
    """Inverse of `to_dict`.

    Raises:
        ArtefactError: If the value is no report.
    """
    try:
        return cast("ReportData", _record(ReportData)(value))
    except AffectLensError:
        raise
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ArtefactError(f"This is no report data ({error}); make it again.") from error


def save(data: ReportData, path: Path) -> None:
    """Write a report's data as JSON, atomically."""
    write_json(path, to_dict(data))


def load(path: Path) -> ReportData:
    """Read what `save` wrote.

    Raises:
        ArtefactError: If the file is missing, no JSON, or no report.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ArtefactError(f"{path} holds no report data; make it again.")
    return from_dict(cast("dict[str, Any]", value))


def plain(value: Any) -> Any:
    """JSON-able form of dataclasses, mappings and arrays; numbers that are not finite are null."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if hasattr(value, "tolist"):  # numpy and torch, scalars included
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


Build = Callable[[Any], Any]


def _record(kind: type) -> Build:
    """Builds a dataclass, and those within it."""

    def build(value: Mapping[str, Any]) -> Any:
        arguments: dict[str, Any] = {}
        optional = {spec.name for spec in fields(kind) if "None" in str(spec.type)}
        for name, item in value.items():
            made = _PARTS.get((kind, name), _with_nan)
            arguments[name] = None if item is None and name in optional else made(item)
        return kind(**arguments)

    return build


def _several(kind: type) -> Build:
    return lambda value: tuple(map(_record(kind), value))


def _by_name(kind: type) -> Build:
    return lambda value: {name: _record(kind)(item) for name, item in value.items()}


def _as_it_is(value: Any) -> Any:
    return value


def _with_nan(value: Any) -> Any:
    """Inverse of what `plain` does to numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: _with_nan(item) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list):
        return tuple(map(_with_nan, cast("list[Any]", value)))
    return math.nan if value is None else value


def _emotion_map(value: Mapping[str, Any]) -> EmotionMap:
    import torch

    names = ("points", "explained", "axes")
    arrays = {n: torch.tensor(_with_nan(value[n]), dtype=torch.float64) for n in names}
    return EmotionMap(tuple(value["emotions"]), **arrays)


_PARTS: Mapping[tuple[type, str], Build] = {
    (ReportData, "header"): _record(Header),
    (ReportData, "probes"): _record(SweepSummary),
    (ReportData, "directions"): _record(DirectionsSummary),
    (ReportData, "emotion_map"): _emotion_map,
    (ReportData, "circuit"): _record(CircuitSummary),
    (ReportData, "evidence"): _record(EvidenceSummary),
    (EvidenceSummary, "curves"): _by_name(CurveSummary),
    (EvidenceSummary, "faithfulness"): _record(LeftSummary),
    (EvidenceSummary, "choices"): _record(ChoiceSummary),
    (ReportData, "tuning"): _record(Tuning),
    (ReportData, "arms"): _by_name(ArmMetrics),
    (ReportData, "comparisons"): _several(Comparison),
    (ReportData, "judges"): _as_it_is,
    (ReportData, "examples"): _several(Example),
    (CircuitSummary, "overlap"): Overlap.from_dict,
    (Tuning, "points"): _several(StrengthPoint),
    (Example, "replies"): _several(Heard),
    (Example, "unsteered"): _record(Heard),
    (Heard, "reply"): _record(Reply),
    (ReportData, "sweeps"): _record(SweepsSummary),
    (SweepsSummary, "curves"): _several(DepthCurve),
    (ReportData, "studies"): _several(StudySummary),
}
"""Fields that hold more than numbers and words, and what builds each."""
