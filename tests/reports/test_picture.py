"""The README's picture is put together from a report's own numbers."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from html_check import Page
from sample import heard, sample

from affectlens.core.errors import ArtefactError
from affectlens.plotting import style

SCRIPT = Path(__file__).parents[2] / "docs" / "make_picture.py"


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_picture", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_picture_holds_the_four_steps_and_the_run_s_numbers(picture: ModuleType):
    page = Page(picture.compose(sample()))
    for title in ("Text", "Directions", "Circuit", "Steered reply"):
        assert title in page.words
    assert {"93\u202f%", "0.81", "510", "92\u202f%"} <= set(page.words)
    assert page.outside() == []


def test_dark_picture_has_dark_figures(picture: ModuleType):
    light, dark = (picture.compose(sample(), dark=d) for d in (False, True))
    anger = style.emotion_colour("anger")
    assert Page(light).scripts["figures"].count(anger) > 0
    assert Page(dark).scripts["figures"].count(anger) == 0


def test_the_example_that_worked_best_is_shown(picture: ModuleType):
    data = sample()
    first = data.examples[0]
    missed = [heard("missed", "neutral", h.reply.arm, h.reply.emotion) for h in first.replies]
    reordered = replace(data, examples=[replace(first, replies=missed), first])
    assert "missed" not in picture.compose(reordered)


@pytest.mark.parametrize("part", ["emotion_map", "circuit", "examples"])
def test_what_is_missing_is_said(picture: ModuleType, part: str):
    data = replace(sample(), **{part: () if part == "examples" else None})
    with pytest.raises(ArtefactError, match="run the"):
        picture.compose(data)
