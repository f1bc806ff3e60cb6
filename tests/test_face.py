"""``import affectlens as al`` is all that notebooks and the README need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import affectlens as al

ROOT = Path(__file__).parent.parent
PAGES = [*sorted((ROOT / "notebooks").glob("*.ipynb")), ROOT / "README.md"]
DEEPER = re.compile(r"(?:from|import) affectlens\.\w|from affectlens import")


@pytest.mark.parametrize("name", sorted(al.__all__))
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(al, name)
    assert isinstance(found, tuple) or found.__doc__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_import_nothing_deeper(page: Path) -> None:
    assert not DEEPER.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_that_pages_use_are_public(page: Path) -> None:
    used = set(re.findall(r"\bal\.(\w+)", page.read_text(encoding="utf-8")))
    assert used and used <= set(al.__all__)


def test_the_line_is_public() -> None:
    line = ("express", "capture", "directions", "sweep", "find_circuit", "refine_directions",
            "refine_circuit", "SteeringPack", "evaluate", "load_judge", "plot", "run")  # fmt: skip
    assert set(line) <= set(al.__all__)
