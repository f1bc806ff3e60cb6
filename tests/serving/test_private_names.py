"""The check of vLLM's private names against sources, on sources written for it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests_vllm import names

FILES = {
    "vllm/__init__.py": "",
    "vllm/base.py": "class Base:\n    def inherited(self): ...\n    flag: int = 0\n",
    "vllm/deep/__init__.py": "from ..base import Base as Renamed\n",
    "vllm/deep/one.py": (
        "from typing import TYPE_CHECKING\n"
        "from vllm.deep import Renamed\n"
        "class One(Renamed[int]):\n"
        "    async def own(self): ...\n"
        "    if True:\n        def sometimes(self): ...\n"
        "try:\n    def function(): ...\nexcept ImportError:\n    pass\n"
        "made = function\n"
    ),
}


@pytest.fixture(params=["folder", "wheel"])
def sources(request: pytest.FixtureRequest, tmp_path: Path) -> names.Sources:
    if request.param == "wheel":
        with zipfile.ZipFile(tmp_path / "vllm.whl", "w") as archive:
            for file, text in FILES.items():
                archive.writestr(file, text)
        return names.open_sources(tmp_path / "vllm.whl")
    for file, text in FILES.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    return names.open_sources(tmp_path)


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("vllm.deep.one:One.own", True),
        ("vllm.deep.one:One.sometimes", True),
        ("vllm.deep.one:One.inherited", True),
        ("vllm.deep.one:One.flag", True),
        ("vllm.deep.one:function", True),
        ("vllm.deep.one:made", True),
        ("vllm.deep.one:Renamed", True),
        ("vllm.deep.one:One.gone", False),
        ("vllm.deep.one:One.own.deeper", False),
        ("vllm.deep.one:Two", False),
        ("vllm.deep.two:One", False),
    ],
)
def test_names_are_followed_to_where_they_are_defined(
    sources: names.Sources, name: str, there: bool
) -> None:
    assert sources.has(name) == there


def test_every_name_of_the_plug_in_is_asked_for(sources: names.Sources) -> None:
    assert names.missing(sources) == list(names.ALL)
    assert len(set(names.ALL)) == len(names.ALL) >= 25
