"""``--help``: groups a person can scan, one line each, an example everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.cli.program import FIRST, PARTS, STAGE
from affectlens.datasets.schema import ROLES
from affectlens.pipeline.line import STAGES


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


EVERY = dict(commands(typer.main.get_command(app)))
GROUPS = ("probe", "circuit", "tune")
"""Stages that have commands of their own below them."""


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def test_groups_stand_in_order_and_hold_what_belongs_together() -> None:
    text = shown("--help")
    assert text.index(FIRST) < text.index(STAGE) < text.index(PARTS)
    panels: dict[str, list[str]] = {}
    for path, command in EVERY.items():
        if len(path) == 1:
            panels.setdefault(command.rich_help_panel, []).append(path[0])
    assert panels == {
        FIRST: ["run", "steer", "dialogue", "play", "bakeoff", "serve", "reproduce"],
        STAGE: sorted(STAGES, key=lambda name: name in GROUPS),  # those with commands of their own
        PARTS: [
            "capture",
            "compare",
            "events",
            "export",
            "import",
            "side-effects",
            "rate",
            "list",
            "store",
            "models",
            "datasets",
            "labels",
            "packs",
            "judges",
        ],
    }


@pytest.mark.parametrize("path", [path for path in EVERY if path], ids=" ".join)
def test_each_command_has_one_line_and_an_example_that_names_it(path: tuple[str, ...]) -> None:
    command = EVERY[path]
    assert command.help and "\n" not in command.help.strip() and len(command.help) < 100
    assert command.epilog and f"affectlens {' '.join(path)}" in command.epilog
    assert "Does the stages" not in command.help


def test_roles_are_named_as_records_have_them() -> None:
    (role,) = [p for p in EVERY["capture",].params if p.name == "role"]
    assert all(name in role.help for name in ROLES) and "probe" not in role.help


def test_a_stage_with_commands_of_its_own_takes_what_other_stages_take() -> None:
    def options(name: str) -> list[str]:
        return [p.name for p in EVERY[name,].params]

    for name in GROUPS:
        assert options(name) == options("directions")


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_command_can_be_asked_and_explains_every_option(path: tuple[str, ...]) -> None:
    shown(*path, "--help")
    for option in EVERY[path].params:
        assert option.help or option.name in ("help", "version"), (path, option.name)
