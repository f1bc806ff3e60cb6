"""The versions that are tried are those that the package names."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent


def pinned(kind: str) -> dict[str, Version]:
    lines = (ROOT / f"constraints-{kind}.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return {name: Version(version) for name, version in pins}


def named() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for one in extras.values() for line in one)]
    return {one.name: one for one in map(Requirement, lines)}


def test_the_oldest_versions_are_those_that_the_package_names() -> None:
    for name, version in pinned("oldest").items():
        lowest = [Version(s.version) for s in named()[name].specifier if s.operator == ">="]
        assert [version] == lowest, name


def test_the_newest_transformers_is_the_last_that_the_package_allows() -> None:
    newest, allowed = pinned("newest"), named()
    for name, version in newest.items():
        assert version in allowed[name].specifier, name
    major, minor, _ = newest["transformers"].release
    assert Version(f"{major}.{minor + 1}") not in allowed["transformers"].specifier
