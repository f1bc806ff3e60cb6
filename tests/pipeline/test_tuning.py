"""Strengths measured cell by cell, and grids that are widened where their best is at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.core import EMOTIONS, Provenance
from affectlens.core.artefact import read_json
from affectlens.evaluation import (
    ARMS,
    Request,
    StrengthPoint,
    beyond,
    choose_strengths,
    generate_replies,
    measure,
)
from affectlens.evaluation.arms import folded_packs, pack_to_tune
from affectlens.evaluation.strength_search import StrengthSearch
from affectlens.pipeline import RunConfig
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.pack_files import tuned_file, untuned_file
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.tune import tune
from affectlens.steering import SteeringPack
from affectlens.steering.spec import MAX_STRENGTH, SteeringSpec

ARMED = [name for name, arm in ARMS.items() if arm.strengths]


@dataclass(frozen=True)
class Verdicts:
    chosen: tuple[str, ...]


class Letters:
    """Hears an emotion by the letters of a text: nonsense, but it depends on the text alone."""

    name = "letters"
    labels = (*EMOTIONS, "neutral", "garbled")

    def __call__(self, texts: Sequence[str]) -> Verdicts:
        return Verdicts(tuple(EMOTIONS[sum(map(ord, t)) % 6] if t else "garbled" for t in texts))


def embed(texts: Sequence[str]) -> np.ndarray:
    rows = np.array([[1.0 + len(t) % 5, 1.0 + t.count("e")] for t in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model("llama", max_position_embeddings=2048)


def make_pack(model: Any, seed: int = 0) -> SteeringPack:
    layers = {"residual.resid_post": (1,), "circuit.o_proj_out": (0, 2)}
    generator = torch.Generator().manual_seed(seed)
    return SteeringPack(
        emotions=EMOTIONS,
        vectors={
            name: torch.randn(6, len(n), model.d_model, generator=generator)
            for name, n in layers.items()
        },
        layers=layers,
        n_layers=model.n_layers,
        d_model=model.d_model,
        recommended={mode: dict.fromkeys(EMOTIONS, 1.0) for mode in ("residual", "circuit")},
        positions=dict.fromkeys(("residual", "circuit"), "generated"),
        provenance=Provenance("pack", model=model.fingerprint),
    )


def make_run(model: Any, folder: Path, **changes: Any) -> StageRun:
    context = RunContext(RunConfig(out=folder, max_new_tokens=6))
    context.__dict__.update(model=model, judge=Letters(), lexicon=Letters(), embed=embed)
    run = context.stage("tune")
    return replace(run, settings=replace(run.settings, n_events=4, **changes))


def searching(run: StageRun) -> StrengthSearch:
    """What the stage makes of its run."""
    events = run.spread_events("tune")
    return StrengthSearch(run.model, run.judge, run.lexicon, run.embed, run.settings, events)


def test_points_are_what_each_cell_gives_alone(model: Any, tmp_path: Path) -> None:
    """Every strength and emotion generated and measured by itself, in `measure`'s own words."""
    run = make_run(model, tmp_path)
    events, pack = run.spread_events("tune"), make_pack(model)
    assert len({e.scenario for e in events}) == 4
    tuner = searching(run).started()
    cells = [(s, e) for s in (0.4, 1.5) for e in ("anger", "fear")]
    found = tuner.points("analytic_circuit", pack, cells)
    settings = run.settings.generation
    plain = generate_replies(model, "unsteered", [Request(e, "") for e in events], settings)
    assert list(tuner.unsteered) == plain
    for point, (strength, emotion) in zip(found, cells, strict=True):
        spec = SteeringSpec({emotion: strength}, mode="circuit", unit="natural")
        asked = [Request(event, emotion, spec) for event in events]
        replies = generate_replies(model, "x", asked, settings, pack=pack)
        alone = measure(
            replies, plain, judge=Letters(), lexicon=Letters(), embed=embed, emotions=(emotion,)
        )
        assert (point.arm, point.emotion, point.strength) == ("analytic_circuit", emotion, strength)
        assert point.accuracy == alone.accuracy
        assert point.perplexity_ratio == pytest.approx(alone.perplexity_ratio, rel=1e-3)
        assert point.harmonic == pytest.approx(alone.harmonic, rel=1e-3)
    assert len({p.perplexity_ratio for p in found}) > 2


def test_grids_grow_where_the_best_is_at_their_end(
    model: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Anger's best lies at 7, fear's in the middle of the grid; only anger's grid goes on."""
    asked: list[list[tuple[float, str]]] = []

    def points(self: StrengthSearch, arm: str, _pack: Any, cells: Any) -> list[StrengthPoint]:
        asked.append(list(cells))
        best = {"anger": 7.0, "fear": 2.0}
        return [StrengthPoint(arm, e, s, 0.5, 2.0, 1 / (1 + abs(s - best[e]))) for s, e in cells]

    monkeypatch.setattr(StrengthSearch, "points", points)
    run = make_run(model, tmp_path, emotions=("anger", "fear"), extensions=3)
    tuner = searching(run)
    found = tuner.search("analytic_circuit", make_pack(model), (1.0, 2.0, 4.0))
    assert asked == [
        [(s, e) for s in (1.0, 2.0, 4.0) for e in ("anger", "fear")],
        [(8.0, "anger")],
        [(16.0, "anger")],
    ]
    assert len(found) == 8
    asked.clear()
    searching(replace(run, settings=replace(run.settings, extensions=0))).search(
        "analytic_circuit", make_pack(model), (1.0, 2.0)
    )
    assert len(asked) == 1


def test_every_tuned_arm_gets_its_strengths(model: Any, tmp_path: Path) -> None:
    for i, name in enumerate(folded_packs()):
        make_pack(model, i).save(tmp_path / untuned_file(name))
    grids = tuple((arm, (0.5 + i / 10, 1.0 + i / 10)) for i, arm in enumerate(ARMED))
    run = make_run(model, tmp_path, strengths=grids, extensions=0, max_perplexity_ratio=1e9)
    files = tune(run)
    assert set(files) == {"tuning.json", *map(tuned_file, folded_packs())}
    told = read_json(tmp_path / "tuning.json")
    assert set(told["chosen"]) == set(ARMED)
    assert {arm for arm, _ in told["at_end"]} == set(ARMED)  # two strengths: always an end
    for arm, grid in grids:
        pack = SteeringPack.load(tmp_path / tuned_file(pack_to_tune(arm).name))
        assert pack.recommended[ARMS[arm].mode] == told["chosen"][arm]
        assert set(told["chosen"][arm].values()) <= set(grid)


def test_nothing_stronger_is_tried_than_a_spec_may_ask_for() -> None:
    points = [StrengthPoint("a", "anger", s, 0.0, 1.0, s) for s in (5.0, 9.0, 16.0)]
    chosen = choose_strengths(points)
    assert beyond(points, chosen) == {("a", "anger"): pytest.approx(16**2 / 9)}
    assert beyond(points, chosen, largest=20.0) == {("a", "anger"): 20.0}
    points.append(StrengthPoint("a", "anger", 20.0, 0.0, 1.0, 20.0))
    chosen = choose_strengths(points)
    assert chosen == {"a": {"anger": 20.0}}
    assert beyond(points, chosen, largest=20.0) == {}
    assert ("a", "anger") in beyond(points, chosen)  # still told as a choice at the end


def test_a_grid_is_widened_up_to_the_largest_strength(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best is always the strongest: the search ends at the limit and asks for nothing above."""
    run = make_run(model, tmp_path, extensions=4)
    tuner = searching(run).started()
    asked: list[float] = []

    def points(arm: str, pack: SteeringPack, cells: Sequence[tuple[float, str]]) -> Any:
        asked.extend(s for s, _ in cells)
        for s, e in cells:
            SteeringSpec({e: s}, mode="circuit", unit="natural")  # as the real one does
        return [StrengthPoint(arm, e, s, 0.0, 1.0, s) for s, e in cells]

    monkeypatch.setattr(StrengthSearch, "points", lambda _self, *given: points(*given))
    tuner.search("analytic_circuit", make_pack(model), (5, 9, 16))
    assert max(asked) == MAX_STRENGTH["natural"]


def test_arms_that_a_stopped_run_has_measured_are_kept(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grids = (("residual", (0.5, 1.0)), ("circuit", (0.5, 1.0)))
    run = make_run(model, tmp_path, strengths=grids, extensions=0)
    for name in folded_packs():
        make_pack(model).save(tmp_path / untuned_file(name))
    search, searched = StrengthSearch.search, list[str]()

    def stopped(self: StrengthSearch, arm: str, *given: Any) -> Any:
        searched.append(arm)
        if arm == "circuit" and len(searched) == 2:
            raise KeyboardInterrupt
        return search(self, arm, *given)

    monkeypatch.setattr(StrengthSearch, "search", stopped)
    (tmp_path / "state").mkdir()
    with pytest.raises(KeyboardInterrupt):
        tune(run)
    tune(run)
    assert searched == ["residual", "circuit", "circuit"]
    found = read_json(tmp_path / "tuning.json")
    tune(replace(run, settings=replace(run.settings, n_events=3)))  # other events: both anew
    assert searched[3:] == ["residual", "circuit"]
    (tmp_path / "state" / "tuning_residual.json").write_text("{", encoding="utf-8")
    tune(run)
    assert searched[5:] == ["residual", "circuit"]  # its file was overwritten by the other events
    assert read_json(tmp_path / "tuning.json") == found
