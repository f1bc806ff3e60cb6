"""The numbers behind a report as JSON, so that it can be drawn again without the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast

from affectlens.core.artefact import read_json, write_json
from affectlens.core.errors import AffectLensError, ArtefactError
from affectlens.reports.data import (
    Arm,
    CircuitData,
    Comparison,
    CrossCorpus,
    Directions,
    EmotionMap,
    Evaluation,
    Example,
    Header,
    Judge,
    Probes,
    Reply,
    ReportData,
    Share,
    StrengthPoint,
    Tuning,
)

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
        return cast("ReportData", _build(ReportData, value))
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


# Fields that hold dataclasses: one, or a sequence of them.
_ONE: Mapping[tuple[type, str], type] = {
    (ReportData, "header"): Header,
    (ReportData, "probes"): Probes,
    (ReportData, "directions"): Directions,
    (ReportData, "emotion_map"): EmotionMap,
    (ReportData, "circuit"): CircuitData,
    (ReportData, "tuning"): Tuning,
    (ReportData, "evaluation"): Evaluation,
    (Example, "unsteered"): Reply,
    (Arm, "masked"): Share,
    (Arm, "later"): Share,
    (Arm, "copied"): Share,
}
_MANY: Mapping[tuple[type, str], type] = {
    (ReportData, "examples"): Example,
    (Tuning, "points"): StrengthPoint,
    (Evaluation, "arms"): Arm,
    (Evaluation, "judges"): Judge,
    (Evaluation, "comparisons"): Comparison,
    (Judge, "cross_corpus"): CrossCorpus,
}


def _build(kind: type, value: Mapping[str, Any]) -> Any:
    arguments: dict[str, Any] = dict(value)
    for name, item in value.items():
        if item is not None and (part := _ONE.get((kind, name))):
            arguments[name] = _build(part, item)
        if part := _MANY.get((kind, name)):
            arguments[name] = tuple(_build(part, one) for one in cast("Sequence[Any]", item))
    if kind is Example:
        arguments["replies"] = {
            emotion: {arm: _build(Reply, reply) for arm, reply in arms.items()}
            for emotion, arms in value["replies"].items()
        }
    for spec in fields(kind):
        if spec.type == "float" and arguments.get(spec.name, 0.0) is None:
            arguments[spec.name] = math.nan
    return kind(**arguments)
