"""Side effects: what is counted, by hand; and a pack on a tiny model, cell by cell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.core import ArtefactError, DataError, MismatchError, UnknownNameError
from affectlens.evaluation.side_effects import UNSTEERED, Asked, side_effects
from affectlens.evaluation.suites import SUITES, Item, Suite
from affectlens.models import load_model
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.models.generation.generation import encode_prompt
from affectlens.pipeline.side_effects import (
    RESULT,
    SideEffectRequest,
    measure_side_effects,
    side_effect_table,
)
from affectlens.steering import generate_steered
from tests.on_disk import save_model
from tests.steering.oracle import random_pack


def suite(name: str, n: int) -> Suite:
    made = Suite(name, "", lambda item, reply: item.id in reply)
    made.__dict__["items"] = tuple(Item(f"{name}{i}", "?") for i in range(n))
    return made


def test_shares_and_differences_by_hand() -> None:
    asked = Asked([suite("a", 3), suite("b", 2)])
    assert [item.id for item in asked.every] == ["a0", "a1", "a2", "b0", "b1"]
    replies = {
        UNSTEERED: ["a0", "a1", "no", "b0 and more words", "b1"],
        ("anger", 1.0): ["a0", "no", "no", "no", "no"],
        ("fear", 0.5): ["a0", "a1", "a2", "b0", "b1"],
    }
    found = {(s.suite, s.emotion): s for s in side_effects(asked, replies)}
    told = {key: (s.share, s.unsteered, s.difference, s.n) for key, s in found.items()}
    third = pytest.approx(1 / 3)
    assert told["a", "anger"] == (third, pytest.approx(2 / 3), pytest.approx(-1 / 3), 3)
    assert told["a", "fear"] == (1.0, pytest.approx(2 / 3), third, 3)
    assert told["b", "anger"] == (0.0, 1.0, -1.0, 2) and told["b", "fear"][2] == 0.0
    assert found["b", "fear"].p == 1.0 and found["b", "anger"].ci == (-1.0, -1.0)
    assert (found["b", "anger"].words, found["b", "anger"].unsteered_words) == (1.0, 2.5)
    rows = side_effect_table(list(found.values()))
    assert {(r["suite"], r["dose"]) for r in rows} == {(s, d) for s in "ab" for d in (0.5, 1.0)}


def test_an_interval_is_that_of_the_bootstrap_of_items() -> None:
    asked = Asked([suite("a", 40)])
    ids = [item.id for item in asked.every]
    plain, steered = ids, [id_ if i % 4 else "no" for i, id_ in enumerate(ids)]
    [one] = side_effects(asked, {UNSTEERED: plain, ("anger", 1.0): steered})
    rng = np.random.default_rng(0)
    drops = np.array([-(i % 4 == 0) for i in range(40)], dtype=float)
    means = drops[rng.integers(40, size=(20000, 40))].mean(1)
    assert one.difference == -0.25
    assert one.ci == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)
    assert one.p < 0.01


def test_replies_that_are_missing_are_refused() -> None:
    asked = Asked([suite("a", 3)])
    with pytest.raises(DataError, match="beside unsteered"):
        side_effects(asked, {("anger", 1.0): ["", "", ""]})
    with pytest.raises(DataError, match="anger at 1 has 2 replies to 3 prompts"):
        side_effects(asked, {UNSTEERED: ["", "", ""], ("anger", 1.0): ["", ""]})


@pytest.fixture
def request_(tmp_path: Path) -> SideEffectRequest:
    name = save_model(tmp_path / "model")
    pack = random_pack(load_model(name, dtype="float32"), size=4)
    pack.save(tmp_path / "p.safetensors")
    return SideEffectRequest(
        tmp_path / "p.safetensors",
        tmp_path / "out",
        model=name,
        suites=("privacy", "length"),
        emotions=("anger",),
        doses=(1.0, 2.0),
        items=2,
        device="cpu",
        dtype="float32",
        generation=GenerationSettings(max_new_tokens=5),
    )


def test_cells_are_generated_kept_and_made_again(request_: SideEffectRequest) -> None:
    cells: list[tuple[str, bool]] = []
    found = measure_side_effects(request_, on_cell=lambda n, kept: cells.append((n, kept)))
    assert cells == [("unsteered", False), ("anger_1", False), ("anger_2", False)]
    assert [(s.suite, s.emotion, s.dose, s.n) for s in found] == [
        ("privacy", "anger", 1.0, 2), ("privacy", "anger", 2.0, 2),
        ("length", "anger", 1.0, 2), ("length", "anger", 2.0, 2),
    ]  # fmt: skip
    assert len(json.loads((request_.out / RESULT).read_text())["rows"]) == 4
    # Each reply is what plain steered generation gives, the system prompt in it.
    model = load_model(str(request_.model), dtype="float32", device="cpu")
    pack = random_pack(model, size=4)
    items = [*SUITES["privacy"].items[:2], *SUITES["length"].items[:2]]
    prompts = [encode_prompt(model, i.prompt, i.system or None) for i in items]
    rows = generate_steered(
        model, pack, prompts, ["anger=2"] * 4, GenerationSettings(max_new_tokens=5)
    )
    texts = [model.tokenizer.decode(list(r), skip_special_tokens=True).strip() for r in rows]
    file = request_.out / "side_effects" / "anger_2.jsonl"
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["reply"] for row in kept[1:]] == texts
    cells.clear()
    file.write_text("\n".join(file.read_text().splitlines()[:3]))  # cut off by a kill
    again = measure_side_effects(
        replace(request_, doses=(2.0, 1.0)), on_cell=lambda n, k: cells.append((n, k))
    )
    assert cells == [("unsteered", True), ("anger_2", False), ("anger_1", True)]
    assert sorted(again, key=str) == sorted(found, key=str)
    changed = replace(request_, generation=GenerationSettings(max_new_tokens=6))
    measure_side_effects(changed, on_cell=lambda n, k: cells.append((n, k)))
    assert cells[-3:] == [("unsteered", False), ("anger_1", False), ("anger_2", False)]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"suites": ("privasy",)}, UnknownNameError, "suite 'privasy'.*privacy"),
        ({"emotions": ("angre",)}, UnknownNameError, "anger"),
        ({"pack_file": Path("none.safetensors")}, ArtefactError, "There is no steering pack"),
    ],
)
def test_what_is_not_there_is_refused(
    request_: SideEffectRequest, change: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        measure_side_effects(replace(request_, **change))  # pyright: ignore[reportArgumentType]
    assert not request_.out.exists()


def test_a_pack_of_another_model_is_refused(request_: SideEffectRequest, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", seed=5)
    with pytest.raises(MismatchError):
        measure_side_effects(replace(request_, model=other))
    with pytest.raises(DataError, match="above 0"):
        replace(request_, doses=(0.0,))
    with pytest.raises(DataError, match="At least one item"):
        replace(request_, items=0)


def test_the_command_asks_for_what_its_options_say(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SideEffectRequest] = []

    def note(request: SideEffectRequest, **_: object) -> list[object]:
        asked.append(request)
        return []

    monkeypatch.setattr("affectlens.pipeline.side_effects.measure_side_effects", note)

    def of(*given: str) -> SideEffectRequest:
        done = CliRunner().invoke(app, ["side-effects", *given])
        assert done.exit_code == 0, done.output
        return asked[-1]

    plain = of()
    assert plain == SideEffectRequest(Path("runs/demo/pack.safetensors"), Path("runs/demo"))
    options = {
        "--run": ("x", {"pack_file": Path("x/pack.safetensors"), "out": Path("x")}),
        "--pack": ("p.safetensors", {"pack_file": Path("p.safetensors")}),
        "--out": ("o", {"out": Path("o")}),
        "--model": ("m", {"model": "m"}),
        "--suites": ("factual, length", {"suites": ("factual", "length")}),
        "--emotions": ("anger,fear", {"emotions": ("anger", "fear")}),
        "--doses": ("1,2", {"doses": (1.0, 2.0)}),
        "--items": ("3", {"items": 3}),
        "--mode": ("residual", {"mode": "residual"}),
        "--max-new-tokens": ("7", {"generation": GenerationSettings(max_new_tokens=7)}),
        "--device": ("cpu", {"device": "cpu"}),
        "--dtype": ("float32", {"dtype": "float32"}),
    }
    for option, (value, changes) in options.items():
        assert of(option, value) == replace(plain, **changes)
