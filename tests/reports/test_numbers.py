"""Report data to JSON and back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from sample import sample, unmeasured

from affectlens.core.errors import ArtefactError, DataError
from affectlens.evaluation import ArmMetrics, Comparison
from affectlens.plotting import DirectionsSummary
from affectlens.reports import Header, ReportData, load, render, save
from affectlens.reports.numbers import from_dict, to_dict


def test_round_trip_draws_the_same_page(tmp_path: Path):
    data = sample()
    save(data, tmp_path / "report.json")
    back = load(tmp_path / "report.json")
    assert to_dict(back) == to_dict(data)
    assert render(back) == render(data)


def test_nan_is_null_in_the_file_and_nan_again_after_it(tmp_path: Path):
    data = ReportData(Header("m"), arms={"a": unmeasured(0.5)})
    save(data, tmp_path / "r.json")
    assert "NaN" not in (tmp_path / "r.json").read_text()
    back = load(tmp_path / "r.json").arms["a"]
    assert isinstance(back, ArmMetrics) and back.accuracy == 0.5 and back.n == 12
    assert math.isnan(back.topic) and all(map(math.isnan, back.masked_accuracy_ci))


def test_measures_and_comparisons_come_back_as_what_they_were(tmp_path: Path):
    nan = float("nan")
    arms = {"circuit": unmeasured(0.9, masked_accuracy=0.4, masked_accuracy_ci=(0.3, 0.5))}
    pairs = [
        Comparison("circuit", "random", "harmonic", 0.1, (nan, nan), nan, 1),
        Comparison("circuit", "random", "accuracy", 0.2, (0.1, 0.3), 0.01, 40),
    ]
    save(ReportData(Header("m"), arms=arms, comparisons=pairs), tmp_path / "r.json")
    back = load(tmp_path / "r.json")
    assert back.arms["circuit"].masked_accuracy_ci == (0.3, 0.5)
    assert back.comparisons[1] == pairs[1] and back.comparisons[0].measure == "harmonic"
    assert math.isnan(back.comparisons[0].p) and all(map(math.isnan, back.comparisons[0].ci))


def test_tensors_and_numpy_scalars_are_written_plainly():
    import numpy as np
    import torch

    data = ReportData(
        Header("m", peak_memory=np.int64(5)),  # type: ignore[arg-type]
        directions=DirectionsSummary(["a", "b"], torch.eye(2), 0),
    )
    plain = json.loads(json.dumps(to_dict(data)))
    assert plain["directions"]["cosines"] == [[1, 0], [0, 1]]
    assert plain["header"]["peak_memory"] == 5


@pytest.mark.parametrize(
    "value", [{}, {"header": {}}, {"header": {"model": "m"}, "extra": 1}, {"header": 3}]
)
def test_what_is_no_report_is_refused(value: dict):
    with pytest.raises(ArtefactError, match="no report data"):
        from_dict(value)


def test_wrong_shapes_in_a_file_are_named():
    value = to_dict(sample())
    value["circuit"]["counts"] = [[1]]
    with pytest.raises(DataError, match=r"circuit\.counts"):
        from_dict(value)


def test_a_list_or_a_missing_file_is_refused(tmp_path: Path):
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(ArtefactError):
        load(tmp_path / "r.json")
    with pytest.raises(ArtefactError):
        load(tmp_path / "none.json")
