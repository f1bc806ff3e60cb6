"""Which pack is meant where nobody names one."""

from __future__ import annotations

from pathlib import Path

import pytest

from affectlens.core import UnknownNameError
from affectlens.serving.pack_requests import pack_files
from affectlens.steering.packs import usual_packs
from affectlens.steering.packs.sources import box


@pytest.fixture
def boxed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A box with two packs, of which only the cards are looked at."""
    folder = tmp_path / "box"
    folder.mkdir()
    for name in ("plain", "other"):
        (folder / f"{name}.card.json").write_text("{}")
    monkeypatch.setattr(box, "folder", lambda: folder)
    return folder


def test_a_run_that_is_named_is_meant_there_or_not(tmp_path: Path, boxed: Path) -> None:
    named = tmp_path / "mine"
    assert usual_packs(named, tmp_path / "demo") == [str(named / "pack.safetensors")]


def test_the_usual_run_goes_before_the_box(tmp_path: Path, boxed: Path) -> None:
    default = tmp_path / "demo"
    assert usual_packs(None, default) == ["box:other", "box:plain"]
    default.mkdir()
    (default / "pack.safetensors").write_bytes(b"")
    assert usual_packs(None, default) == [str(default / "pack.safetensors")]


def test_an_empty_box_leaves_the_file_that_is_missing(tmp_path: Path, boxed: Path) -> None:
    for card in boxed.iterdir():
        card.unlink()
    assert usual_packs(None, tmp_path) == [str(tmp_path / "pack.safetensors")]


def test_servers_take_names_of_packs(boxed: Path) -> None:
    """The short name is that of the pack, unless another is given."""
    (boxed / "plain.safetensors").write_bytes(b"")
    file = str((boxed / "plain.safetensors").resolve())
    assert pack_files(["box:plain"]) == {"plain": file}
    assert pack_files(["mine=box:plain", f"file:{boxed}/plain"]) == {"mine": file, "plain": file}
    with pytest.raises(UnknownNameError, match="pack in the box"):
        pack_files(["box:nobody"])
