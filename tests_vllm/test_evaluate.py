"""The comparison of arms over a real server: the same table as in one process.

This runs in the main environment, which has no vLLM; the server is started with the interpreter of
the other one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformer_lens", reason="needs the main environment")

from affectlens.core import EMOTIONS
from affectlens.evaluation import ARMS, Backend, Transformers, Vllm
from affectlens.evaluation.arms import folded_packs
from affectlens.models.generation.generation import GenerationSettings, encode_prompt
from affectlens.pipeline import RunConfig
from affectlens.pipeline.arm_files import load_replies
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.pack_files import tuned_file
from affectlens.pipeline.settings import Settings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.evaluate import arm_packs, evaluate, generating
from affectlens.steering import SteeringPack
from tests_vllm.engines import ROOT
from tests_vllm.reference import EVENTS
from tests_vllm.reference import random_pack as some_pack

PYTHON = os.environ.get("VLLM_PYTHON", str(ROOT / ".venv-vllm" / "bin" / "python"))
NEW, N_EVENTS = 12, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


def make_run(folder: Path, **options: Any) -> StageRun:
    config = RunConfig.checked(out=folder, dtype="float32", max_new_tokens=NEW, **options)
    settings = Settings.of(config)
    few = replace(settings.evaluate, n_events=N_EVENTS)
    return RunContext(config, replace(settings, evaluate=few)).stage("evaluate")


@pytest.fixture(scope="module")
def here(folder: Path) -> StageRun:
    run = make_run(folder)
    some = some_pack(run.model, size=1.0)
    for i, name in enumerate(folded_packs()):
        some.with_recommended("circuit", 1.0 + i).save(folder / tuned_file(name))
    return run


@pytest.fixture(scope="module")
def packs(here: StageRun) -> dict[Path, SteeringPack]:
    return {here.folder / tuned_file(name): pack for name, pack in arm_packs(here).items()}


@pytest.fixture(scope="module")
def server(here: StageRun, packs: dict[Path, SteeringPack]) -> Iterator[Vllm]:
    """A server as `affectlens evaluate --backend vllm` starts it, its workers spawned."""
    run = make_run(here.folder, backend="vllm", vllm_python=PYTHON)
    run.context.__dict__["model"] = here.model
    with pytest.MonkeyPatch.context() as patch:
        for name in ("VLLM_CPU_OMP_THREADS_BIND", "VLLM_ENABLE_V1_MULTIPROCESSING"):
            patch.delenv(name, raising=False)
        # Compiling takes minutes here.
        with generating(run, packs, ["--enforce-eager"]) as found:
            assert isinstance(found, Vllm)
            yield found


def test_the_arms_are_the_same(here: StageRun, server: Vllm, tmp_path: Path) -> None:
    """Also: a server that runs already is used, and is found to serve this model."""
    there = make_run(tmp_path, backend="vllm", url=server.server.url)
    there.context.__dict__["model"] = here.model
    for name in folded_packs():
        SteeringPack.load(here.folder / tuned_file(name)).save(tmp_path / tuned_file(name))
    assert evaluate(here) == evaluate(there)
    for arm in ARMS:
        ours = load_replies(here.folder / "replies" / f"{arm}.jsonl")
        theirs = load_replies(tmp_path / "replies" / f"{arm}.jsonl")
        assert theirs == ours
        assert len(ours) == N_EVENTS * (1 if arm == "unsteered" else len(EMOTIONS))


def test_settings_and_requests_of_all_kinds(
    here: StageRun,
    server: Vllm,
    packs: dict[Path, SteeringPack],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack, model = next(iter(packs.values())), here.model
    specs = [None, "none", "anger=1", "fear=-0.7,happiness=0.5;mode=circuit;positions=all"]
    specs += ["sadness=1;operator=project_out;positions=prompt", "disgust=1;unit=natural"]
    prompts = [encode_prompt(model, text) for text in EVENTS[: len(specs)]]
    settings = GenerationSettings(max_new_tokens=20)
    # So that most replies end by themselves.
    common = [model.tokenizer.encode(text)[0] for text in (".", ",", " the", "!", "\n")]
    ends = tuple({*model.eos_ids, *common})
    for changed, stops in (
        (settings, model.eos_ids),
        (replace(settings, repetition_penalty=1.0), model.eos_ids),
        (settings, ends),
        (replace(settings, min_new_tokens=6, repetition_penalty=1.4), ends),
    ):
        monkeypatch.setitem(model.__dict__, "eos_ids", stops)
        backends: list[Backend] = [Transformers(model), replace(server, stops=stops)]
        ours, theirs = (
            one.generate(prompts, specs, pack, changed, lambda _n: None) for one in backends
        )
        assert theirs == ours
        shortest = min(len(reply) for reply in ours)
        assert changed.min_new_tokens <= shortest
        assert shortest < changed.max_new_tokens or stops != ends
