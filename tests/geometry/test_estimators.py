"""A direction estimator is one function and one row."""

from __future__ import annotations

import pytest
import torch

from affectlens.core.errors import UnknownNameError
from affectlens.geometry import ESTIMATORS, directions
from affectlens.geometry.estimators import Displacements, Estimator, Rows, Weights
from tests.geometry.synthetic import planted


def axes(rows: Rows, weight: Weights) -> Displacements:
    """Every emotion along a coordinate of its own."""
    return torch.eye(rows.n_emotions, rows.x.shape[1]).expand(len(weight), -1, -1)


def test_a_toy_estimator_is_there_by_its_name() -> None:
    store, _ = planted()
    toy = Estimator("axes", "coordinate axes", axes, grouped=True, neutral=False)
    with ESTIMATORS.adding(toy):
        vectors = directions(store, estimator="axes").vectors[0]
        torch.testing.assert_close(vectors, torch.eye(*vectors.shape))
        with pytest.raises(UnknownNameError, match="axes"):
            directions(store, estimator="axis")
    assert "axes" not in ESTIMATORS


def test_every_row_says_what_it_is_in_one_line() -> None:
    for name, row in ESTIMATORS.items():
        assert row.name == name and row.help and "\n" not in row.help
