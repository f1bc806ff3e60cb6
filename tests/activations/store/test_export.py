"""Exported rows, read by the tools they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from affectlens.activations import ActivationStore
from affectlens.activations.store.export import FORMATS, ExportFormat, export
from affectlens.activations.store.export import format as format_module
from affectlens.core.artefact import read_tensors
from affectlens.core.errors import ArtefactError, UnknownNameError
from affectlens.core.places import Site
from tests.activations.store.made_up import SITES, made_up

SITE = SITES[2]


@pytest.fixture(params=["float32", "bfloat16", "float16", "int8"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ActivationStore:
    written = made_up(dtype=request.param).write(tmp_path / "acts")
    assert written is not None
    monkeypatch.setattr(format_module, "_CHUNK_BYTES", 4 * 7 * 10)  # ten rows at once
    return written.select(emotion=("anger", None, "happiness"))


def test_npy(store: ActivationStore, tmp_path: Path) -> None:
    path = export(store, tmp_path / "rows.npy", SITE, "all")
    found = np.load(path, allow_pickle=False)
    assert found.dtype == (np.float16 if store.dtype == "float16" else np.float32)
    np.testing.assert_array_equal(found, store.array(SITE, "all"))
    assert len(found) > 20


def test_safetensors(store: ActivationStore, tmp_path: Path) -> None:
    path = export(store, tmp_path / "rows.st", SITE.hook_name, "all", format="safetensors")
    assert torch.equal(load_file(path)["x"], store.tensor(SITE, "all"))
    ours = read_tensors(path, "activations")
    assert ours.provenance == store.provenance
    assert ours.extra["site"] == SITE.hook_name and ours.extra["rows"] == store.fingerprint


def test_parquet(store: ActivationStore, tmp_path: Path) -> None:
    path = export(store, tmp_path / "rows.parquet", SITE, "all", format="parquet")
    table = pq.read_table(path)
    values = np.stack(table.column("values").to_numpy())
    np.testing.assert_array_equal(values, store.to_numpy(SITE, "all"))
    assert table.drop_columns("values").equals(store.labels(position="all"))
    assert set(table.column("emotion").to_pylist()) == {"anger", None, "happiness"}


def test_wrong_requests(tmp_path: Path) -> None:
    store = made_up().write(tmp_path / "acts")
    assert store is not None
    for bad in (
        {"format": "csv"},
        {"site": Site(5, "z")},
        {"position": "mean:reply"},
    ):
        with pytest.raises(UnknownNameError):
            export(store, tmp_path / "x", **{"site": SITE, "position": "all", **bad})
    with pytest.raises(ArtefactError, match="is a folder"):
        export(store, tmp_path, SITE, "all")
    assert not (tmp_path / "x").exists()


def test_a_format_of_ones_own_is_one_row(tmp_path: Path) -> None:
    def write(store: ActivationStore, path: Path, site: Site, position: str) -> None:
        np.savetxt(path, store.array(site, position), delimiter=",")

    store = made_up().write(tmp_path / "acts")
    assert store is not None
    with FORMATS.adding(ExportFormat("csv", "numbers between commas", write)):
        path = export(store, tmp_path / "x.csv", SITE, "all", format="csv")
        assert "csv" in FORMATS
    found = np.loadtxt(path, delimiter=",", dtype=np.float32)
    np.testing.assert_array_equal(found, store.array(SITE, "all"))
    assert "csv" not in FORMATS
