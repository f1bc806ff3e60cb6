"""Report data to JSON and back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from sample import sample

from affectlens.core.errors import ArtefactError, DataError
from affectlens.reports import (
    Arm,
    Comparison,
    Evaluation,
    Header,
    ReportData,
    Share,
    load,
    render,
    save,
)
from affectlens.reports.numbers import from_dict, to_dict


def test_round_trip_draws_the_same_page(tmp_path: Path):
    data = sample()
    save(data, tmp_path / "report.json")
    back = load(tmp_path / "report.json")
    assert to_dict(back) == to_dict(data)
    assert render(back) == render(data)


def test_nan_is_null_in_the_file_and_nan_again_after_it(tmp_path: Path):
    data = ReportData(Header("m"), evaluation=Evaluation(["fear"], [Arm("a", 0.5, 0.4, 0.6)]))
    save(data, tmp_path / "r.json")
    assert "NaN" not in (tmp_path / "r.json").read_text()
    back = load(tmp_path / "r.json").evaluation
    assert back and math.isnan(back.arms[0].topic) and back.arms[0].n is None
    assert back.arms[0].masked is None


def test_shares_and_comparisons_come_back_as_what_they_were(tmp_path: Path):
    nan = float("nan")
    arm = Arm("circuit", 0.9, 0.8, 1.0, masked=Share(0.4, nan, nan))
    pair = Comparison("circuit", "random", "harmonic", 0.1)
    evaluation = Evaluation(["fear"], [arm], comparisons=[pair], false_hits=0.06)
    save(ReportData(Header("m"), evaluation=evaluation), tmp_path / "r.json")
    back = load(tmp_path / "r.json").evaluation
    assert back and isinstance(back.arms[0].masked, Share) and back.arms[0].masked.value == 0.4
    assert math.isnan(back.arms[0].masked.low) and math.isnan(back.comparisons[0].p)
    assert back.comparisons[0].measure == "harmonic" and back.false_hits == 0.06


def test_tensors_and_numpy_scalars_are_written_plainly():
    import numpy as np
    import torch

    from affectlens.reports import Directions

    data = ReportData(
        Header("m", peak_memory=np.int64(5)),  # type: ignore[arg-type]
        directions=Directions(["a", "b"], torch.eye(2), 0),
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
