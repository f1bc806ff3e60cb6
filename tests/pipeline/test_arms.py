"""Which arms are generated again, and which are kept."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from affectlens.core import AffectLensError, ArtefactError, DataError
from affectlens.evaluation import ARMS
from affectlens.evaluation.arms import folded_packs
from affectlens.pipeline import RunConfig
from affectlens.pipeline.arm_files import load_replies
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.pack_files import tuned_file
from affectlens.pipeline.settings import Settings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.evaluate import evaluate
from affectlens.steering import SteeringPack


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model("llama", max_position_embeddings=2048)


@pytest.fixture
def run(model: Any, tmp_path: Path) -> StageRun:
    return make_run(model, tmp_path)


def make_run(model: Any, folder: Path, **options: Any) -> StageRun:
    """A run in a folder with a pack for all six emotions."""
    import torch

    from affectlens.core import EMOTIONS, Provenance

    layers = {"residual.resid_post": (1,), "circuit.o_proj_out": (0, 2)}
    generator = torch.Generator().manual_seed(0)
    pack = SteeringPack(
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
    for i, name in enumerate(folded_packs()):
        pack.with_recommended("circuit", 1.0 + i).save(folder / tuned_file(name))
    context = RunContext(RunConfig(out=folder, events=1, max_new_tokens=4, **options))
    context.__dict__["model"] = model
    return context.stage("evaluate")


def stamps(run: StageRun) -> dict[str, int]:
    return {arm: (run.folder / "replies" / f"{arm}.jsonl").stat().st_mtime_ns for arm in ARMS}


def age(run: StageRun) -> dict[str, int]:
    """Give all replies an old date, so that a new one shows."""
    for arm in ARMS:
        os.utime(run.folder / "replies" / f"{arm}.jsonl", (1, 1))
    return stamps(run)


def redone(run: StageRun) -> set[str]:
    before = age(run)
    files = evaluate(run)
    assert all((run.folder / file).is_file() for file in files)
    return {arm for arm, stamp in stamps(run).items() if stamp != before[arm]}


def test_finished_arms_are_kept(run: StageRun, model: Any) -> None:
    evaluate(run)
    first = {arm: load_replies(run.folder / "replies" / f"{arm}.jsonl") for arm in ARMS}
    assert redone(run) == set()

    (run.folder / "state" / "arm_prompted.json").unlink()  # stopped before it was done
    text = (run.folder / "replies" / "circuit.jsonl").read_text()
    (run.folder / "replies" / "circuit.jsonl").write_text(text[:-40])  # damaged
    assert redone(run) == {"prompted", "circuit"}
    assert {a: load_replies(run.folder / "replies" / f"{a}.jsonl") for a in ARMS} == first

    pack = SteeringPack.load(run.folder / "pack.safetensors")
    pack.with_recommended("circuit", 2.0).save(run.folder / "pack.safetensors")
    assert redone(run) == {
        "residual",
        "circuit",
        "prompted_circuit",
        "random",
    }  # whatever the pack steers
    assert redone(make_run(model, run.folder, seed=5)) == set(ARMS)
    assert redone(make_run(model, run.folder, seed=5, force=True)) == set(ARMS)


def test_a_stop_in_an_arm_loses_that_one_alone(run: StageRun, monkeypatch: Any) -> None:
    from affectlens import evaluation

    real, seen = evaluation.generate_replies, list[str]()

    def stopped(model: Any, arm: str, *args: Any, **options: Any) -> Any:
        seen.append(arm)
        if arm == "residual":
            raise KeyboardInterrupt
        return real(model, arm, *args, **options)

    monkeypatch.setattr(evaluation, "generate_replies", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run)
    monkeypatch.setattr(evaluation, "generate_replies", real)
    assert seen == ["unsteered", "prompted", "residual"]
    kept = run.folder / "replies" / "prompted.jsonl"
    before = kept.stat().st_mtime_ns
    evaluate(run)
    assert kept.stat().st_mtime_ns == before
    assert len(load_replies(run.folder / "replies" / "residual.jsonl")) == 18


def test_all_arms_answer_the_same_events_of_all_scenarios(model: Any, tmp_path: Path) -> None:
    run = make_run(model, tmp_path)
    everything = replace(run, settings=replace(run.settings, scenarios=None))
    events = everything.spread_events("test")
    assert len(events) == len({e.scenario for e in events}) == 40
    counts = Counter(e.valence for e in events)
    assert len(counts) == 3 and max(counts.values()) - min(counts.values()) <= 1
    few = replace(run, settings=replace(everything.settings, n_events=7)).spread_events("test")
    assert len({e.scenario for e in few}) == 7 and len({e.theme for e in few}) >= 6
    twice = replace(run, settings=replace(everything.settings, n_events=80)).spread_events("test")
    assert set(Counter(e.scenario for e in twice).values()) == {2}

    evaluate(run)
    rows = {arm: load_replies(run.folder / "replies" / f"{arm}.jsonl") for arm in ARMS}
    asked = {arm: {(r.event, r.emotion, r.prompt) for r in found} for arm, found in rows.items()}
    assert len({frozenset(a) for arm, a in asked.items() if arm != "unsteered"}) == 1
    assert {a[0] for a in asked["unsteered"]} == {a[0] for a in asked["circuit"]}


def test_only_the_prompted_arms_have_a_system_prompt_and_no_arm_a_limit_of_length() -> None:
    from affectlens.datasets import load
    from affectlens.evaluation import arm_requests

    events = list(load("events").filter(split="test"))[:2]
    for arm in ARMS:
        for request in arm_requests(arm, events):
            if arm in ("prompted", "prompted_circuit"):
                assert request.system == f"Always reply in {request.emotion}."
            else:
                assert request.system is None


def test_damaged_replies_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{")
    with pytest.raises(ArtefactError, match="delete it and run again"):
        load_replies(tmp_path / "x.jsonl")


def test_where_a_server_runs_makes_no_difference(tmp_path: Path) -> None:
    def settings(**options: Any) -> Settings:
        return Settings.of(RunConfig.checked(out=tmp_path, **options))

    plain = settings()
    there = settings(backend="vllm", url="http://127.0.0.1:8000")
    here = settings(backend="vllm", vllm_python="/opt/python")
    assert there == here
    changed = {f.name for f in fields(plain) if getattr(plain, f.name) != getattr(there, f.name)}
    assert changed == {"evaluate", "report"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "http://127.0.0.1:8000"}, "--backend vllm"),
        ({"vllm_python": "python"}, "--backend vllm"),
        ({"backend": "vllm", "url": "http://x", "vllm_python": "python"}, "one of them"),
        ({"backend": "vlm"}, "back end 'vlm'.*vllm"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], says: str) -> None:
    with pytest.raises(AffectLensError, match=says):
        RunConfig.checked(**options)


def test_no_server_means_no_reply(model: Any, tmp_path: Path) -> None:
    from affectlens.serving.child_process import free_port

    url = f"http://127.0.0.1:{free_port()}"
    run = make_run(model, tmp_path, backend="vllm", url=url)
    with pytest.raises(DataError, match="is it running"):
        evaluate(run)
    assert not (tmp_path / "replies").exists()
