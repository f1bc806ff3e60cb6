"""Replies by the workers of a Ray cluster: those of one process, whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from affectlens.core.errors import AffectLensError, MismatchError
from affectlens.datasets import load
from affectlens.evaluation import BACKENDS, BackendRequest, Transformers
from affectlens.evaluation.backends.ray_workers import RayWorkers
from affectlens.evaluation.replies import encode_event
from affectlens.models.generation.generation import GenerationSettings
from affectlens.models.loading import LanguageModel, load_model
from affectlens.pipeline.run_config import RunConfig
from affectlens.steering import SteeringSpec
from tests.on_disk import actors, save_model
from tests.steering.oracle import random_pack

ray: Any = pytest.importorskip("ray")

N = 40
finds_processes = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(save_model(tmp_path_factory.mktemp("ray") / "model"), dtype="float32")


@pytest.fixture(scope="module")
def request_(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> BackendRequest:
    prompt = encode_event(model, next(iter(load("events"))))
    log = tmp_path_factory.mktemp("log") / "log"
    return BackendRequest(model, model.name, {}, prompt, None, None, log, workers=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def asked(model: LanguageModel) -> tuple[list[Any], list[Any], Any]:
    pack = random_pack(model)
    prompts = [encode_event(model, event) for event in list(load("events"))[:N]]
    wanted = [None, "anger=1.5;mode=circuit", "fear=2;mode=residual;operator=rotate"]
    specs = [
        None if text is None else SteeringSpec.parse(text, pack.emotions)
        for text in (wanted[i % 3] for i in range(N))
    ]
    return prompts, specs, pack


def test_without_ray_or_a_cluster_there_is_a_sentence(
    request_: BackendRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not ray.is_initialized()  # so this test comes first
    kind = BACKENDS["ray"]
    gone = replace(request_, url="127.0.0.1:9")
    with pytest.raises(AffectLensError, match=r"No Ray cluster answers"), kind.open(gone):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AffectLensError, match=r"affectlens\[distributed\]"), kind.open(request_):
        pass


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_replies_are_those_of_one_process(
    cluster: None, model: LanguageModel, request_: BackendRequest, temperature: float
) -> None:
    prompts, specs, pack = asked(model)
    settings = GenerationSettings(max_new_tokens=6, temperature=temperature, seed=3)
    wanted = Transformers(model).generate(prompts, specs, pack, settings, lambda _n: None)
    told = list[int]()
    with BACKENDS["ray"].open(request_) as backend:
        assert isinstance(backend, RayWorkers) and len(backend.workers) == 2
        found = backend.generate(prompts, specs, pack, settings, told.append)
        assert found == wanted and len({*found}) > 3
        assert sum(told) == N and len(told) > 1
        plain = Transformers(model).generate(prompts, [None] * N, None, settings, lambda _n: None)
        assert backend.generate(prompts, [None] * N, None, settings, told.append) == plain


def test_workers_without_a_place_get_no_work(
    cluster: None,
    model: LanguageModel,
    request_: BackendRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two cores, four workers of a core: two of them would wait for ever."""
    from affectlens.evaluation.backends import ray_workers

    monkeypatch.setattr(ray_workers, "PATIENCE", 20.0)
    prompts, specs, pack = asked(model)
    settings = GenerationSettings(max_new_tokens=4)
    wanted = Transformers(model).generate(prompts, specs, pack, settings, lambda _n: None)
    with BACKENDS["ray"].open(replace(request_, workers=4)) as backend:
        assert isinstance(backend, RayWorkers) and 1 <= len(backend.workers) <= 2
        assert backend.generate(prompts, specs, pack, settings, lambda _n: None) == wanted
    assert "of 4 workers" in caplog.text


@finds_processes
def test_a_worker_that_is_killed_is_followed_by_another(
    cluster: None, model: LanguageModel, request_: BackendRequest
) -> None:
    prompts, specs, pack = asked(model)
    settings = GenerationSettings(max_new_tokens=6)
    wanted = Transformers(model).generate(prompts, specs, pack, settings, lambda _n: None)
    killed = list[int]()

    def kill(_n: int) -> None:
        if not killed:
            killed.extend(actors(os.getpid(), b"ray::Writer"))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    with BACKENDS["ray"].open(request_) as backend:
        assert backend.generate(prompts, specs, pack, settings, kill) == wanted
    assert killed


def test_other_weights_are_refused(
    cluster: None, model: LanguageModel, request_: BackendRequest, tmp_path: Path
) -> None:
    other = replace(request_, source=save_model(tmp_path / "other", seed=1))
    prompts, _, _ = asked(model)
    settings = GenerationSettings(max_new_tokens=2)
    with (
        pytest.raises(MismatchError, match="has other weights on"),
        BACKENDS["ray"].open(other) as backend,
    ):
        backend.generate(prompts[:1], [None], None, settings, lambda _n: None)


def test_options_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(AffectLensError, match="--ray-workers is for --backend ray"):
        RunConfig.checked(ray_workers=2)
    with pytest.raises(AffectLensError, match="Ray's workers load the model in their own way"):
        RunConfig.checked(backend="ray", quantize="int8")
    assert RunConfig.checked(backend="ray", url="ray://head:10001", ray_workers=3).ray_workers == 3
    with pytest.raises(AffectLensError, match="--vllm-python are for --backend vllm"):
        RunConfig.checked(backend="ray", vllm_python="python")
