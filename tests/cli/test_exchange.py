"""``export``, ``import`` and ``packs``, from the shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.models import load_model
from affectlens.steering import SteeringPack
from affectlens.steering.exporting import block_vectors
from tests.on_disk import save_model
from tests.steering.oracle import random_pack
from tests.steering.vector_tools import safetensors_bytes


def said(*arguments: Any, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "250"})
    assert done.exit_code == code, done.output
    if code:
        assert done.output.count("Error: ") == 1 and done.output.strip().count("\n") == 0
    return done.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, SteeringPack]:
    """A folder with a pack of a tiny model that is there too."""
    folder = tmp_path_factory.mktemp("made")
    name = save_model(folder / "model")
    pack = random_pack(load_model(name, dtype="float32"))
    pack.save(folder / "pack.safetensors")
    return folder, name, pack


def test_there_and_back(made: tuple[Path, str, SteeringPack], tmp_path: Path) -> None:
    folder, name, pack = made
    file, out = tmp_path / "mood.gguf", tmp_path / "mood.safetensors"
    export = ("export", "-e", "anger=0.5", "-e", "fear=-1", "--format", "gguf", "--out", file,
              "--mode", "residual", "--layers", "2")  # fmt: skip
    text = said(*export, "--pack", folder / "pack.safetensors")
    assert "anger=0.5,fear=-1" in text and "2 → direction.2" in text
    assert "last_prompt+generated" in text and "llama.cpp steers every token" in text
    first = file.read_bytes()
    said(*export, "--run", folder)
    assert file.read_bytes() == first
    back = ("import", f"mood={file}", "--format", "gguf", "--model", name, "--out", out,
            "--dtype", "float32", "--device", "cpu")  # fmt: skip
    assert "after the blocks 2" in said(*back)
    found = SteeringPack.load(out)
    wanted = block_vectors(pack, "anger=0.5,fear=-1", layers="2")[0].vectors[2]
    assert torch.equal(found.vectors["residual.resid_post"][0, 0], wanted)
    assert found.positions == {"residual": "all"}
    said(*back, "--positions", "generated", "--layers", "2")
    assert SteeringPack.load(out).positions == {"residual": "generated"}
    assert "no vector for the blocks [1]" in said(*back, "--layers", "1", code=1)
    assert "--force takes features" in said(*back, "--force", code=1)
    assert "is no LABEL=FILE" in said("import", file, *back[2:], code=1)
    again = said("import", f"mood={file}", f"mood={file}", *back[2:], code=1)
    assert "two files for mood" in again


def test_features_of_a_dictionary_are_imported(
    made: tuple[Path, str, SteeringPack], tmp_path: Path
) -> None:
    _, name, pack = made
    rows = torch.arange(5 * pack.d_model, dtype=torch.float32).view(5, -1)
    (tmp_path / "sae_weights.safetensors").write_bytes(safetensors_bytes({"W_dec": rows}))
    said_to_be = {"hook_name": "blocks.1.hook_resid_post", "model_name": "another"}
    (tmp_path / "cfg.json").write_text(json.dumps(said_to_be))
    out = tmp_path / "joy.safetensors"
    take = ("import", f"joy={tmp_path}:3", "--format", "saelens", "--model", name, "--out", out,
            "--dtype", "float32", "--device", "cpu")  # fmt: skip
    assert "of the model another" in said(*take, code=1) and not out.exists()
    assert "after the blocks 1" in said(*take, "--force")
    found = SteeringPack.load(out)
    assert torch.equal(found.vectors["residual.resid_post"][0, 0], rows[3])
    assert found.positions == {"residual": "all"}
    said(*take, "--force", "--positions", "generated", "--layers", "1")
    assert SteeringPack.load(out).positions == {"residual": "generated"}
    assert "is of block 1" in said(*take, "--force", "--layers", "0", code=1)
    assert "LABEL=FILE:FEATURE" in said("import", f"joy={tmp_path}", *take[2:], code=1)
    unknown = said("import", take[1], "--format", "sealens", *take[4:], code=1)
    assert "sealens" in unknown and "saelens" in unknown


def test_modules_are_named_as_the_model_names_them(
    made: tuple[Path, str, SteeringPack], tmp_path: Path
) -> None:
    out = tmp_path / "v.pt"
    export = ("export", "-e", "anger=1", "--format", "lm-eval", "--out", out, "--run", made[0])
    said(*export)
    assert list(torch.load(out, weights_only=True)) == ["layers.0", "layers.2"]
    said(*export, "--block-list", "h")
    assert list(torch.load(out, weights_only=True)) == ["h.0", "h.2"]


def test_a_circuit_is_put_down_with_its_error(
    made: tuple[Path, str, SteeringPack], tmp_path: Path, tiny_model: Any
) -> None:
    folder, name, _ = made
    out = tmp_path / "v.safetensors"
    export = ("export", "-e", "anger=1", "--mode", "circuit", "--format", "safetensors",
              "--out", out, "--run", folder, "--dtype", "float32", "--device", "cpu")  # fmt: skip
    text = said(*export, "--model", name)
    assert "Instead of the circuit: effect on logits off by 0." in text
    assert "Unknown model 'tiny'" in said(*export, code=1)  # the name in the pack


def test_packs_are_listed_looked_into_checked_and_passed_on(
    made: tuple[Path, str, SteeringPack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, pack = made
    file, shared = folder / "pack.safetensors", tmp_path / "shared"
    monkeypatch.chdir(tmp_path)
    assert "no card" in said("packs", "info", file) and "no card" in said(
        "packs", "verify", file, code=1
    )
    words = ("--licence", "MIT", "--use", "to try", "--limits", "none known", "--revision", "r1")
    name = said("packs", "push", file, f"file:{shared}/moods", *words).strip()
    assert name == f"file:{shared}/moods.safetensors"
    info = said("packs", "info", name)
    for part in ("licence: MIT", "for: to try", "limits: none known", "revision: r1",
                 "resid_post of the blocks 0, 2", pack.fingerprint, "fear 1.5"):  # fmt: skip
        assert part in info, part
    assert "is what its card says" in said("packs", "verify", name)
    listed = said("packs", "list", f"file:{shared}")
    assert "moods.safetensors" in listed.replace("\n", "") and "anger, fear, happiness" in listed
    assert "box:" in said("packs", "list")
    assert said("packs", "pull", name).strip() == "moods.safetensors"
    assert said("packs", "pull", name, "--out", "mine.safetensors").strip() == "mine.safetensors"
    assert (tmp_path / "mine.card.json").read_text() == (shared / "moods.card.json").read_text()
    pack.with_recommended("residual", 9.0).save("moods.safetensors")
    assert "--force" in said("packs", "push", "moods.safetensors", f"file:{shared}", code=1)
    said("packs", "push", "moods.safetensors", f"file:{shared}", "--force")
    assert "anger 9" in said("packs", "info", f"file:{shared}")


def test_a_pack_by_name_steers(made: tuple[Path, str, SteeringPack], tmp_path: Path) -> None:
    folder, name, _ = made
    said("packs", "push", folder / "pack.safetensors", f"file:{tmp_path}/moods")
    steer = ("steer", "My train", "-e", "anger=9", "--model", name, "--dtype", "float32",
             "--device", "cpu", "--max-new-tokens", "3", "--pack")  # fmt: skip
    name, plain = f"file:{tmp_path}/moods", folder / "pack.safetensors"
    shown, wanted = said(*steer, name), said(*steer, plain)
    assert shown.splitlines()[:-1] == wanted.splitlines()[:-1]  # the last says which pack it was
    assert name in shown.splitlines()[-1]
    assert "no steering pack" in said(*steer, tmp_path / "none.safetensors", code=1)
