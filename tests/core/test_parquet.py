"""Rows as Parquet."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from affectlens.core import ArtefactError
from affectlens.core.parquet import write_parquet


def test_rows_come_back(tmp_path: Path) -> None:
    rows = [{"emotion": "fear", "p": 0.5}, {"emotion": "anger", "what": "x"}]
    write_parquet(tmp_path / "rows.parquet", rows)
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == [
        {"emotion": "fear", "p": 0.5, "what": None},
        {"emotion": "anger", "p": None, "what": "x"},
    ]
    write_parquet(tmp_path / "none.parquet", [])
    assert pq.read_table(tmp_path / "none.parquet").to_pylist() == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError):
        write_parquet(tmp_path / "file" / "rows.parquet", [{"a": 1}])
