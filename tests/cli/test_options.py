"""Options given twice: they add up, or are refused; none wins without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.models import load_model
from affectlens.models.generation.generation import GenerationSettings, encode_prompt
from affectlens.pipeline.line import STAGES
from affectlens.steering import generate_steered
from tests.on_disk import save_model
from tests.steering.oracle import random_pack

COLLECT = {"serve --pack", "play --pack", "steer --emotion", "export --emotion",
           "capture --column", "capture --split",
           "capture --role", "capture --emotion", "store export --split", "store export --emotion",
           "store export --role", "datasets show --column",
           "datasets check --column", "reproduce --correct", "compare --column",
           *(f"probe sweep --{one}" for one in ("model", "corpus", "target", "probe", "map")),
           "probe sweep --column", "probe read --text",
           "rate --column", "probe study persistence --target", "probe study malleability --system",
           "probe study persistence --column", "probe study malleability --column",
           "reproduce --template-var", "compare --template-var",
           *(f"{one} --column" for one in ("run", *STAGES)),
           *(f"{one} --template-var" for one in ("run", "steer", "capture", *STAGES))}  # fmt: skip
"""Each of these has a test of what becomes of several, here or with what takes them."""


def options() -> Iterator[tuple[str, Any]]:
    """Every option of every command."""

    def of(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from of(inner, f"{path} {name}".strip())
        if not hasattr(command, "commands"):
            for option in command.params:
                if option.param_type_name == "option":
                    yield path, option

    return of(typer.main.get_command(app), "")


EVERY = [pytest.param(path, one, id=f"{path} {max(one.opts, key=len)}") for path, one in options()]


@pytest.mark.parametrize(("path", "option"), EVERY)
def test_an_option_has_one_value_or_collects_them(path: str, option: Any) -> None:
    name = max(option.opts, key=len)
    if f"{path} {name}" in COLLECT:
        assert option.multiple
        return
    assert not option.multiple
    if option.is_flag and not option.secondary_opts:
        return  # twice the same
    twice = (
        [name, option.secondary_opts[0]]
        if option.is_flag
        else [name, "1", f"{option.opts[0]}", "2"]
    )
    done = CliRunner().invoke(app, [*path.split(), *twice], env={"COLUMNS": "200"})
    assert done.exit_code == 2 and f"{name} is given twice" in done.output


def test_emotions_add_up_on_the_command_line(tmp_path: Path) -> None:
    name = save_model(tmp_path / "model")
    model = load_model(name, dtype="float32")
    pack = random_pack(model, size=4)
    pack.save(tmp_path / "p.safetensors")
    fixed = ["steer", "My train was cancelled.", "--pack", str(tmp_path / "p.safetensors"),
             "--model", name, "--dtype", "float32", "--device", "cpu",
             "--max-new-tokens", "6"]  # fmt: skip

    def said(*more: str) -> str:
        done = CliRunner().invoke(app, [*fixed, *more], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return done.output

    ids = encode_prompt(model, "My train was cancelled.")
    settings = GenerationSettings(max_new_tokens=6)
    for given, spec in (
        (["-e", "anger=1", "-e", "fear=2"], "anger=1,fear=2"),
        (["-e", "anger=1;unit=rms", "--emotion", "fear=2", "--mode", "circuit"],
         "anger=1,fear=2;mode=circuit;unit=rms"),
    ):  # fmt: skip
        rows = generate_steered(model, pack, [ids, ids], ["none", spec], settings)
        plain, steered = (
            model.tokenizer.decode(list(row), skip_special_tokens=True).strip() for row in rows
        )
        found = said(*given)
        assert str(pack.resolve(spec)) in found
        for text in (plain, steered):
            assert all(line.strip() in found for line in text.splitlines())
        assert steered != plain and found == said("-e", spec)
    for given, sentence in (
        (["-e", "anger=1;mode=circuit", "--mode", "residual"], "mode is circuit and residual"),
        (["-e", "anger=1", "-e", "anger=2"], "anger twice"),
    ):
        done = CliRunner().invoke(app, [*fixed, *given])
        assert done.exit_code == 1 and sentence in done.output.replace("\n", " ")


def test_a_column_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("a,b\nanger,x\n")
    given = ["--column", "emotion=a", "--column", "emotion=b"]
    done = CliRunner().invoke(app, ["datasets", "show", str(tmp_path / "c.csv"), *given])
    assert done.exit_code == 1 and "emotion twice" in done.output
    run = ["run", "--corpus", str(tmp_path / "c.csv"), "--out", str(tmp_path / "run"), *given]
    done = CliRunner().invoke(app, run)
    assert done.exit_code == 1 and "emotion twice" in done.output.replace("\n", " ")


def test_one_pack_is_checked() -> None:
    given = ["serve", "--check", "http://127.0.0.1:9", "--pack", "a", "--pack", "b"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 1 and "one --pack" in done.output
