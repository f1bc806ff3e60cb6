from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.core import artefact
from affectlens.core.artefact import (
    Provenance,
    atomic_write,
    canonical_json,
    file_fingerprint,
    fingerprint,
    read_header,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)
from affectlens.core.errors import ArtefactError, MismatchError

PROVENANCE = Provenance(
    kind="directions",
    model="m1",
    model_name="tiny",
    corpus="c1",
    parameters={"seed": 0, "estimator": "group_centred"},
    inputs={"acts": "a1"},
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "file.safetensors"
    write_tensors(path, {"v": torch.arange(6.0).reshape(2, 3)}, PROVENANCE, {"labels": ["a", "b"]})
    return path


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    shared = torch.randn(4, 6)
    tensors = {
        "whole": shared,
        "view": shared[:, ::2],  # not contiguous, shares storage
        "half": shared.bfloat16(),
        "index": torch.tensor([1, 2, 3]),
        "flag": torch.tensor(True),
        "empty": torch.zeros(0, 5),
    }
    path = tmp_path / "file.safetensors"
    write_tensors(path, tensors, PROVENANCE, {"n": 3})
    found = read_tensors(path, "directions")
    assert set(found.tensors) == set(tensors)
    for name, value in tensors.items():
        assert found.tensors[name].dtype == value.dtype
        assert torch.equal(found.tensors[name], value)
    assert found.provenance == PROVENANCE
    assert found.extra == {"n": 3}
    assert read_header(path) == (PROVENANCE, {"n": 3}, found.package_version)
    assert [p.name for p in tmp_path.iterdir()] == ["file.safetensors"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_cut_short_anywhere_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(ArtefactError, match=r"cut short or damaged.*make it again"):
            read_tensors(file)
    file.write_bytes(whole + b"more")
    with pytest.raises(ArtefactError, match="damaged"):
        read_tensors(file)


@pytest.mark.parametrize("length", [2**63, 2**40, 10**6])
def test_a_header_that_claims_to_be_huge_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" * 50)
    with pytest.raises(ArtefactError, match="damaged"):
        read_tensors(path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    torch.save({"v": torch.ones(2)}, path)
    with pytest.raises(ArtefactError, match="damaged"):
        read_tensors(path)


def test_files_of_others_and_of_other_kinds_are_refused(file: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(MismatchError, match="holds a directions, not a pack"):
        read_tensors(file, "pack")
    with pytest.raises(ArtefactError, match="There is no file"):
        read_tensors(tmp_path / "none")
    other = tmp_path / "other.safetensors"
    save_file({"v": torch.ones(1)}, other)
    with pytest.raises(ArtefactError, match="not written by affectlens"):
        read_tensors(other)
    header: dict[str, Any] = {"format_version": 99, "provenance": {"kind": "x"}, "extra": {}}
    for broken, match in (
        (json.dumps(header), "format 99, newer than the 1"),
        (json.dumps({"format_version": 1}), "damaged header"),
        ("[1]", "damaged header"),
        ("{", "damaged header"),
    ):
        save_file({"v": torch.ones(1)}, other, metadata={"affectlens": broken})
        with pytest.raises(ArtefactError, match=match):
            read_tensors(other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, {"fine": torch.ones(2), "bad": torch.tensor([1.0, value])}, PROVENANCE)
    with pytest.raises(ArtefactError, match="tensor 'bad' holds NaN or infinity"):
        read_tensors(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(file: Path) -> None:
    old = file.read_bytes()

    def fails(path: Path) -> None:
        path.write_bytes(b"half of it")
        raise KeyError("bug")

    with pytest.raises(KeyError):
        atomic_write(file, fails)

    def full(path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ArtefactError, match=r"No space left to write .* free some disk"):
        atomic_write(file, full)
    assert file.read_bytes() == old
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_while_writing_tensors_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ArtefactError, match="No space left"):
        write_tensors(tmp_path / "x", {"v": torch.ones(1)}, PROVENANCE)
    assert list(tmp_path.iterdir()) == []


def test_a_place_one_may_not_write_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtefactError, match="Could not write"):
        write_text(tmp_path / "file" / "below", "x")
    with pytest.raises(ArtefactError, match=r"May not write .* choose a folder"):
        atomic_write(
            tmp_path / "x", lambda _: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no"))
        )


def test_a_process_killed_while_writing_leaves_the_old_file(file: Path) -> None:
    old = file.read_bytes()
    script = (
        "import sys, time; from pathlib import Path\n"
        "from affectlens.core.artefact import atomic_write\n"
        "def slow(path):\n"
        "    path.write_bytes(b'x' * 100); time.sleep(60)\n"
        "atomic_write(Path(sys.argv[1]), slow)\n"
    )
    root = str(Path(artefact.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.Popen([sys.executable, "-c", script, str(file)], env=environment)
    deadline = time.monotonic() + 300
    while not any(p.stat().st_size == 100 for p in file.parent.glob(".*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert file.read_bytes() == old
    assert read_tensors(file).extra == {"labels": ["a", "b"]}


def test_json_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_json(path, {"z": 1, "a": ["ü", None]})
    assert path.read_text(encoding="utf-8").startswith('{\n  "z": 1')
    assert read_json(path) == {"z": 1, "a": ["ü", None]}
    write_json(path, PROVENANCE)
    assert Provenance(**read_json(path)) == PROVENANCE
    path.write_bytes(b'{"a": ')
    with pytest.raises(ArtefactError, match="cannot be read as JSON"):
        read_json(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ArtefactError, match="cannot be read as JSON"):
        read_json(path)
    with pytest.raises(ArtefactError, match="There is no file"):
        read_json(tmp_path / "none.json")


@settings(deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_fingerprint_does_not_depend_on_order(value: dict[str, Any]) -> None:
    turned = dict(reversed(list(value.items())))
    assert fingerprint(value) == fingerprint(turned)
    assert len(fingerprint(value)) == 16
    assert json.loads(canonical_json(value)) == value


def test_a_fingerprint_depends_on_everything_else() -> None:
    values = [(), (1,), ("1",), (1, 2), (12,), ([1, 2],), ({"a": 1},), (b"raw",), (None,), ("",)]
    assert len({fingerprint(*value) for value in values}) == len(values)
    assert fingerprint(PROVENANCE) == fingerprint(replace(PROVENANCE))
    assert fingerprint(Path("a")) == fingerprint("a")
    assert fingerprint({2, 1}) == fingerprint([1, 2])
    with pytest.raises(TypeError, match="cannot write object"):
        fingerprint(object())


def test_a_file_fingerprint_is_sha256(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert file_fingerprint(path).startswith("ba7816bf8f01cfea414140de5dae2223")


def test_provenance_names_what_counts() -> None:
    assert replace(PROVENANCE, model_name="other").fingerprint == PROVENANCE.fingerprint
    changes: list[dict[str, Any]] = [
        {"kind": "x"},
        {"model": "m2"},
        {"corpus": "c2"},
        {"parameters": {"seed": 1}},
        {"inputs": {}},
    ]
    names = {replace(PROVENANCE, **change).fingerprint for change in changes}
    assert len(names | {PROVENANCE.fingerprint}) == len(changes) + 1


def test_a_file_for_another_model_is_refused_unless_forced() -> None:
    PROVENANCE.require_model("m1")
    PROVENANCE.require_model("m2", "other", force=True)
    with pytest.raises(MismatchError, match=r"made for model tiny \(m1\), not for other \(m2\)"):
        PROVENANCE.require_model("m2", "other")
