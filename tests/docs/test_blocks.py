"""Every block of code in README and docs: it runs, or says why it is only checked."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from affectlens.cli import app
from affectlens.steering.spec import SteeringSpec
from tests.docs.blocks import ROOT, Block, blocks, commands, without_variables

SHELL = blocks("sh", "bash", "shell")
PYTHON = blocks("python")
DEFAULT = "smollm2-135m-instruct"
KNOWN = ("sh", "bash", "shell", "python", "text", "json", "ebnf", "console")
INTRODUCED = {
    "directions": "al.Directions",
    "store": "al.ActivationStore",
    "sweep": "al.Sweep",
    "model": "al.LanguageModel",
    "pack": "al.SteeringPack",
    "llm": "Any",
}
"""Names that a page introduces in its prose, or leaves to the reader, and what they are."""


def test_there_are_blocks_and_all_languages_are_known() -> None:
    assert len(SHELL) > 20 and len(PYTHON) > 20
    assert {one.language for one in blocks()} <= set(KNOWN)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_shell_can_be_read(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def parser() -> Any:
    """The command line, whose commands do nothing."""
    program: Any = typer.main.get_command(app)

    def disarm(command: Any) -> None:
        command.callback = lambda **_: None
        for inner in getattr(command, "commands", {}).values():
            disarm(inner)

    disarm(program)
    return program


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_takes_its_options(block: Block, parser: Any) -> None:
    for words in map(without_variables, commands(block.text)):
        if words[:1] == ["affectlens"]:
            code = parser.main(words[1:], prog_name="affectlens", standalone_mode=False)
            assert code in (0, None), f"{block}: {' '.join(words)}"
        elif words[:1] == ["make"]:
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert words[1] in targets, f"{block}: make {words[1]}"
        elif words[:2] in (["python", "-m"], ["python3", "-m"]):
            assert importlib.util.find_spec(words[2]), f"{block}: {words[2]}"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_bodies_of_requests_are_json_and_specs_are_specs(block: Block) -> None:
    for words in commands(block.text):
        for flag, value in pairwise(words):
            if flag not in ("-d", "--data", "--additional-config"):
                continue
            body = json.loads(value)
            asked = body.get("vllm_xargs", body).get("affectlens") or body.get("affectlens")
            if isinstance(asked, str) and "angr=" not in asked:  # shown to be refused
                SteeringSpec.parse(asked)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_can_be_read(block: Block) -> None:
    ast.parse(block.text)


def test_python_is_of_the_right_types(tmp_path: Path) -> None:
    """Pyright on every page as one module: names, imports, attributes, arguments."""
    for page, some in groupby(PYTHON, key=lambda one: one.page):
        text = "\n".join(one.text for one in some)
        used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        given = [
            f"{name} = cast({kind}, None)" for name, kind in INTRODUCED.items() if name in used
        ]
        head = ["from typing import Any, cast", "import affectlens as al", *given]
        name = page.replace("/", "_").replace("-", "_").removesuffix(".md")
        (tmp_path / f"{name}.py").write_text("\n".join([*head, text]), encoding="utf-8")
    settings = {
        "include": ["."],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "basic",
        "pythonVersion": "3.11",
        "reportRedeclaration": False,
        "reportUnusedExpression": False,
        "reportMissingImports": "warning",  # vLLM and openai live elsewhere
        "reportOptionalMemberAccess": False,
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run([*command, "-p", str(tmp_path)], capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    wrong = [f"{Path(one['file']).name}:{one['range']['start']['line']}: {one['message']}"
             for one in found if one["severity"] == "error"]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def run_python() -> Iterator[Any]:
    """Blocks that run, page by page, each in the namespace that those before it left."""
    for page, some in groupby([b for b in PYTHON if b.only_checked is None], lambda one: one.page):
        yield pytest.param(list(some), id=page)


@pytest.mark.parametrize("page", run_python())
def test_python_runs(page: list[Block], demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    names: dict[str, Any] = {"__name__": "__docs__"}
    for block in page:
        text = block.text.replace(DEFAULT, str(demo / "model"))
        exec(compile("\n" * block.line + text, str(ROOT / block.page), "exec"), names)


@pytest.mark.parametrize("block", [b for b in SHELL if b.only_checked is None], ids=str)
def test_shell_runs(block: Block, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    monkeypatch.chdir(demo)
    for words in commands(block.text.replace(DEFAULT, str(demo / "model"))):
        assert words[0] == "affectlens", f"{block}: {words} is run by no test; say why"
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{' '.join(words)}\n{done.output}"
        assert done.stdout.strip()
