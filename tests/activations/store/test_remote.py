"""Stores behind URLs: the same bytes, read by ranges, one writer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from affectlens.activations import ActivationStore
from affectlens.activations.store import lock
from affectlens.activations.store.folder import LocalFolder, open_folder
from affectlens.activations.store.writer import opened_for_writing, read_layout
from affectlens.core.errors import ArtefactError
from tests.activations.store.made_up import SITES, contents, made_up

URL = "memory://stores/acts"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Locks that need no seconds, and an empty file system."""
    monkeypatch.setattr(lock, "_SETTLE", 0.01)
    monkeypatch.setattr(lock, "BEAT", 0.05)
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()


def _remote(fs: Any) -> dict[str, bytes]:
    return {path.removeprefix("/stores/acts/"): fs.cat_file(path) for path in fs.find("/stores")}


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_url_holds_what_a_folder_holds(dtype: str, tmp_path: Path, quick: Any) -> None:
    made = made_up(dtype=dtype)
    local = made.write(tmp_path / "acts")
    assert read_layout(URL) is None
    remote = made.write(URL)
    assert local is not None and remote is not None
    expected = contents(tmp_path / "acts")
    del expected["writer.lock"]
    assert _remote(quick) == expected
    assert read_layout(URL) == made.spec.layout
    opened = ActivationStore.open(URL)
    opened.verify()
    assert opened.path is None and opened.info().where == URL
    assert opened.rows.equals(local.rows)
    for site in SITES:
        for position in ("last", "all"):
            assert torch.equal(opened.tensor(site, position), local.tensor(site, position))
            found = opened.tensor(site, position, [7, 3])
            assert torch.equal(found, local.tensor(site, position, [7, 3]))
    ours = next(opened.batches(SITES[0], "all", columns=("id",)))
    theirs = next(local.batches(SITES[0], "all", columns=("id",)))
    assert torch.equal(ours.values, theirs.values) and ours.labels == theirs.labels
    some = opened.select(emotion="fear").save("memory://stores/some").tensor(SITES[1], "all")
    same = local.select(emotion="fear").save(tmp_path / "some").tensor(SITES[1], "all")
    assert torch.equal(some, same)


def test_a_url_is_gone_on_from(tmp_path: Path, quick: Any) -> None:
    made = made_up()
    made.write(tmp_path / "acts")
    expected = contents(tmp_path / "acts")
    del expected["writer.lock"]
    made.write(URL, only={0, 1, 3})
    path = "/stores/acts/shards/00001.safetensors"
    whole = bytearray(quick.cat_file(path))
    whole[-1] ^= 1
    quick.pipe_file(path, bytes(whole))
    with pytest.raises(ArtefactError, match=r"not finished \(3 of 5 shards\)"):
        ActivationStore.open(URL)
    with opened_for_writing(URL, made.spec, made.table) as session:
        assert session.done == {0, 3}
    store = made.write(URL)
    assert _remote(quick) == expected
    quick.pipe_file(path, bytes(whole[:-9]))
    assert store is not None
    with pytest.raises(ArtefactError, match=r"00001\.safetensors is cut short"):
        store.verify()
    with pytest.raises(ArtefactError, match=r"00001\.safetensors is cut short"):
        store.to_torch(SITES[2], "all")
    quick.rm_file(path)
    with pytest.raises(ArtefactError, match=r"00001\.safetensors is missing"):
        ActivationStore.open(URL).to_torch(SITES[2], "all")


def test_only_one_writes_to_a_url(quick: Any) -> None:
    made = made_up()
    with opened_for_writing(URL, made.spec, made.table):
        time.sleep(0.2)  # several signs of life
        with pytest.raises(ArtefactError, match=r"Another process is writing .* lapses after 60"):
            made.write(URL)
    assert "writer.lock" not in _remote(quick)
    made.write(URL)


def test_the_lock_of_a_dead_process_lapses_and_of_a_live_one_does_not(
    quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_up()
    sign = {"token": "dead", "beat": 3, "time": time.time() - 100}
    quick.pipe_file("/stores/acts/writer.lock", json.dumps(sign).encode())
    made.write(URL)
    assert "writer.lock" not in _remote(quick)
    # A holder whose clock is behind, but which signs while it is watched.
    monkeypatch.setattr(lock.time, "time", lambda: 0.0)
    with opened_for_writing(URL, made.spec, made.table):
        monkeypatch.undo()
        monkeypatch.setattr(lock, "BEAT", 0.1)
        with pytest.raises(ArtefactError, match="Another process is writing"):
            made.write(URL)


def test_a_lock_that_was_taken_over_stops_the_first_writer(quick: Any) -> None:
    made = made_up()
    made.write(URL, only=range(5))
    with opened_for_writing(URL, made.spec, made.table) as session:
        sign = {"token": "other", "beat": 1, "time": time.time()}
        quick.pipe_file("/stores/acts/writer.lock", json.dumps(sign).encode())
        with pytest.raises(ArtefactError, match="Another process took over"):
            session.finish()
    assert json.loads(quick.cat_file("/stores/acts/writer.lock"))["token"] == "other"


def test_something_else_behind_a_url_is_left_alone(quick: Any) -> None:
    quick.pipe_file("/stores/acts/chapter.txt", b"x")
    with pytest.raises(ArtefactError, match="no activation store"):
        made_up().write(URL, force=True)
    assert _remote(quick) == {"chapter.txt": b"x"}
    with pytest.raises(ArtefactError, match="There is no activation store in memory://nowhere"):
        ActivationStore.open("memory://nowhere")
    with pytest.raises(ArtefactError, match="cannot be opened"):
        ActivationStore.open("nosuchthing://bucket/acts")


def test_a_file_url_is_a_local_folder(tmp_path: Path) -> None:
    url = (tmp_path / "my acts").as_uri()
    assert "%20" in url and isinstance(open_folder(url), LocalFolder)
    made = made_up()
    made.write(url)
    store = ActivationStore.open(tmp_path / "my acts")
    assert store.path == tmp_path / "my acts"
    assert torch.equal(store.tensor(SITES[0], "all"), made.values[SITES[0], "all"])
