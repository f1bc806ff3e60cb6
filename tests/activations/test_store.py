from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from affectlens.activations import ActivationStore
from affectlens.core.artefact import Provenance
from affectlens.core.errors import ArtefactError, DataError, MismatchError, UnknownNameError
from affectlens.core.sites import Site

SITES = (Site(0, "resid_post"), Site(1, "resid_post"), Site(1, "mlp_post"))


def _store(dtype: torch.dtype = torch.float32) -> ActivationStore:
    torch.manual_seed(0)
    arrays = {s: torch.randn(6, 5 if s.kind == "mlp_post" else 3).to(dtype) for s in SITES}
    labels = {
        "emotion": ["anger", "fear", None, "anger", "fear", "anger"],
        "group": ["a", "a", "a", "b", "b", "c"],
        "split": ["fit", "fit", "fit", "test", "test", "fit"],
    }
    return ActivationStore.of(arrays, labels, design="replies")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_round_trip(dtype: torch.dtype, tmp_path: Path) -> None:
    memory = _store(dtype)
    disk = memory.save(tmp_path / "acts")
    assert disk.sites == SITES and disk.positions == ("mean:reply",)
    assert disk.provenance == memory.provenance and disk.design == "replies"
    assert disk.rows.equals(memory.rows)
    for site in SITES:
        assert torch.equal(disk.tensor(site), memory.tensor(site))
        assert disk.to_torch(site).dtype == torch.float32
        np.testing.assert_array_equal(disk.to_numpy(site), memory.to_torch(site).numpy())
        name = f"mean-reply/{site.hook_name}.safetensors"
        assert torch.equal(load_file(tmp_path / "acts" / name)["x"], memory.tensor(site))


def test_one_site_is_mapped_without_the_others(tmp_path: Path) -> None:
    store = _store()
    disk = store.save(tmp_path / "acts")
    for path in (tmp_path / "acts").glob("*/*.safetensors"):
        if SITES[1].hook_name not in path.name or "mlp" in path.name:
            path.write_bytes(b"\xff" * path.stat().st_size)  # as long, but unreadable
    opened = ActivationStore.open(tmp_path / "acts")
    array = opened.array(SITES[1])
    assert isinstance(array, np.memmap) and not array.flags.writeable
    np.testing.assert_array_equal(array, store.array(SITES[1]))
    with pytest.raises(ArtefactError, match="cut short or damaged"):
        opened.array(SITES[0])
    with pytest.raises(ArtefactError, match="is not the file that was written"):
        opened.verify()
    assert torch.equal(disk.to_torch(SITES[1].hook_name), store.to_torch(SITES[1]))


def test_tensors_do_not_write_through(tmp_path: Path) -> None:
    disk = _store().save(tmp_path / "acts")
    before = disk.to_torch(SITES[0])
    disk.tensor(SITES[0]).zero_()
    disk.to_torch(SITES[0]).zero_()
    assert torch.equal(disk.to_torch(SITES[0]), before)
    disk.verify()


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    _store().save(tmp_path / "acts")
    path = next((tmp_path / "acts").glob("*/*.safetensors"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ArtefactError, match="cut short"):
        ActivationStore.open(tmp_path / "acts")
    path.unlink()
    with pytest.raises(ArtefactError, match="missing"):
        ActivationStore.open(tmp_path / "acts")
    path.write_bytes(whole)
    ActivationStore.open(tmp_path / "acts").verify()


def _edit(folder: Path, change: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m: m.update(format_version=99), ArtefactError, "upgrade"),
        (lambda m: m["provenance"].update(kind="pack"), MismatchError, "holds a pack"),
        (lambda m: m["arrays"][0].update(file="../x"), ArtefactError, "outside its folder"),
        (lambda m: m["arrays"][0].update(file="/etc/passwd"), ArtefactError, "outside its folder"),
        (lambda m: m["arrays"][0].update(site="blocks.0.nothing"), ArtefactError, "damaged"),
        (lambda m: m.pop("arrays"), ArtefactError, "damaged"),
        (lambda m: m.update(dtype="float64"), ArtefactError, "damaged"),
        (lambda m: m["table"].update(sha256="0"), ArtefactError, "not the file"),
        (lambda m: m["arrays"][0].update(rows=7), ArtefactError, "not as many labels"),
    ],
)
def test_a_manifest_that_lies_is_refused(
    change: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    _store().save(tmp_path / "acts")
    _edit(tmp_path / "acts", change)
    with pytest.raises(error, match=message):
        ActivationStore.open(tmp_path / "acts")


def test_a_shape_that_lies_is_refused_when_read(tmp_path: Path) -> None:
    _store().save(tmp_path / "acts")
    _edit(tmp_path / "acts", lambda m: m["arrays"][0].update(width=2))
    with pytest.raises(ArtefactError, match="does not hold 6 rows of 2"):
        ActivationStore.open(tmp_path / "acts").array(SITES[0])


def test_no_store_there(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no activation store"):
        ActivationStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ArtefactError, match="cannot be read as JSON"):
        ActivationStore.open(tmp_path)


@pytest.mark.parametrize("on_disk", [False, True])
def test_select(on_disk: bool, tmp_path: Path) -> None:
    store = _store().save(tmp_path / "acts") if on_disk else _store()
    every = store.to_torch(SITES[0])
    assert torch.equal(store.select(emotion="anger").to_torch(SITES[0]), every[[0, 3, 5]])
    both = store.select(emotion=("anger", "fear"), split="fit")
    assert torch.equal(both.to_torch(SITES[0]), every[[0, 1, 5]])
    twice = store.select(split="fit").select([True, False, False, True])
    assert torch.equal(twice.to_torch(SITES[0]), every[[0, 5]])
    assert twice.column("group") == ["a", "c"] and len(twice) == 2
    np.testing.assert_array_equal(twice.array(SITES[2]), store.to_numpy(SITES[2])[[0, 5]])
    assert twice.save(tmp_path / "some").column("emotion") == ["anger", "anger"]
    assert torch.equal(ActivationStore.open(tmp_path / "some").to_torch(SITES[0]), every[[0, 5]])
    assert twice.fingerprint not in {store.fingerprint, both.fingerprint}
    assert store.select(split=("fit", "test")).fingerprint == store.fingerprint
    with pytest.raises(UnknownNameError, match="anger"):
        store.select(emotion="angr")
    with pytest.raises(UnknownNameError, match="emotion"):
        store.select(feeling="anger")
    with pytest.raises(DataError, match="No activations are left"):
        store.select(emotion="fear", group="c")
    with pytest.raises(DataError, match="one value per row"):
        store.select([True])


def test_defaults_and_unknown_names() -> None:
    store = _store()
    assert store.default_position() == "mean:reply"
    assert store.default_sites("resid_post") == SITES[:2]
    with pytest.raises(UnknownNameError, match="position"):
        store.to_torch(SITES[0], "last")
    with pytest.raises(UnknownNameError, match=r"blocks\.1\.hook_resid_post"):
        store.to_torch(Site(2, "resid_post"))
    with pytest.raises(UnknownNameError):
        store.default_sites("resid_pre@0")


def test_rows_from_elsewhere_are_checked() -> None:
    x = {SITES[0]: torch.ones(2, 3)}
    with pytest.raises(DataError, match="lengths"):
        ActivationStore.of(x, {"emotion": ["anger"]})
    with pytest.raises(DataError, match="NaN"):
        ActivationStore.of({SITES[0]: torch.tensor([[1.0, float("inf")]])}, {"emotion": ["fear"]})
    first = ActivationStore.of(x, {"emotion": ["anger", "fear"]})
    second = ActivationStore.of(x, {"emotion": ["fear", "anger"]})
    assert first.fingerprint != second.fingerprint
    named = ActivationStore.of(
        x, {"emotion": ["anger", "fear"]}, provenance=Provenance("activations", model="m")
    )
    assert named.provenance.model == "m"


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("x")
    with pytest.raises(ArtefactError, match="choose another folder"):
        _store().save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "x"
    (tmp_path / "empty").mkdir()
    assert len(_store().save(tmp_path / "empty")) == 6


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from affectlens.activations import files

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "posix_fallocate", full)
    with pytest.raises(ArtefactError, match="No space left to write"):
        _store().save(tmp_path / "acts")
    assert not list(tmp_path.iterdir())
