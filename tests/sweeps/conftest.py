"""A sweep of a tiny model over two small corpora, with every control, made once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from affectlens.pipeline.corpus_choice import CorpusChoice
from affectlens.sweeps import CONTROLS, Control, SweepRequest, SweepResults, run_sweeps
from affectlens.sweeps.controls import Setting
from affectlens.sweeps.request import Fitting
from tests.conftest import tiny_hf, tiny_tokenizer

EMOTIONS = {"anger": "furious at the", "fear": "afraid of the", "happiness": "glad about the"}
THINGS = ("train", "dark room", "letter", "dog", "test", "storm", "bus", "call")


def save_model(folder: Path, seed: int = 0) -> str:
    """A tiny model with room for longer texts."""
    tiny_hf("llama", seed, max_position_embeddings=1024).save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 1024
    tokenizer.save_pretrained(folder)
    return str(folder)


def rows(opening: str = "", groups: int = 12) -> list[dict[str, Any]]:
    """Matched texts, an intensity, and an own label, in groups."""
    return [
        {
            "id": f"{opening}{g}-{emotion}",
            "text": f"{opening}It is {g} and I am {words} {THINGS[g % len(THINGS)]} today.",
            "emotion": emotion,
            "group": f"g{g:02d}",
            "intensity": round(0.1 * (g % 7) + len(words) / 10, 2),
            "size": "big" if g % 3 else "small",
            "split": "test" if g % 3 == 1 else "fit",
        }
        for g in range(groups)
        for emotion, words in EMOTIONS.items()
    ]


def save_rows(path: Path, made: list[dict[str, Any]]) -> str:
    """As JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return str(path)


def choice(path: str) -> CorpusChoice:
    """Of a file of `rows`."""
    return CorpusChoice(path, labels=",".join(EMOTIONS))


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two models and two corpora."""
    folder = tmp_path_factory.mktemp("sweeps")
    return {
        "model": save_model(folder / "one"),
        "other": save_model(folder / "two", seed=1),
        "plain": save_rows(folder / "plain.jsonl", rows()),
        "quoted": save_rows(folder / "quoted.jsonl", rows("She says: ")),
    }


def request(files: dict[str, str], out: Path, **changes: Any) -> SweepRequest:
    """One model, both corpora, one penalty less than many."""
    asked: dict[str, Any] = {
        "models": (files["model"],),
        "corpora": (choice(files["plain"]), choice(files["quoted"])),
        "out": out,
        "sites": "resid_post@1",
        "fitting": Fitting(penalties=(0.01, 1.0), folds=3, draws=100, permutations=9),
        "device": "cpu",
        "dtype": "float32",
        **changes,
    }
    return SweepRequest(**asked)


Made = tuple[SweepRequest, SweepResults, list[Setting]]


def made(files: dict[str, str], out: Path, **changes: Any) -> Made:
    """A sweep with every control, and what these were given."""
    asked = request(files, out, controls=("all",), **changes)
    given: list[Setting] = []

    def note(setting: Setting) -> list[Any]:
        given.append(setting)
        return []

    with CONTROLS.adding(Control("note", "notes what it is given", "", note, numbers=True)):
        return asked, run_sweeps(asked), given


@pytest.fixture(scope="session")
def whole(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two corpora with everything beside them."""
    return made(files, tmp_path_factory.mktemp("whole") / "out", transfer=True, curves=True)


@pytest.fixture(scope="session")
def numbers(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A number and a label that are columns of one's own file."""
    return made(
        files,
        tmp_path_factory.mktemp("numbers") / "out",
        targets=("intensity", "size"),
        corpora=(choice(files["plain"]),),
    )
