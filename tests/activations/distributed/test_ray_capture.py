"""Capture over Ray: the same bytes as one process writes, whoever is killed on the way."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.activations import ActivationStore, CaptureSettings, capture
from affectlens.activations.distributed.actor import Actor, CaptureRequest, Source, plan_work
from affectlens.activations.distributed.ray_capture import capture_with_ray
from affectlens.activations.distributed.ray_cluster import Share
from affectlens.core.errors import AffectLensError, ArtefactError, DataError, MismatchError
from affectlens.datasets import Corpus, load
from affectlens.models.loading import LanguageModel, load_model
from tests.on_disk import actors, alive, contents, save_model, save_texts

ray: Any = pytest.importorskip("ray")

finds_processes = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

N_TEXTS = 240
WHAT: dict[str, Any] = {
    "sites": "resid_post,z@1,pattern@0",
    "positions": "last,all",
    "max_tokens_per_batch": 128,
    "shard_bytes": 200_000,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    save_model(folder / "model")
    save_texts(folder / "texts.jsonl", N_TEXTS)
    return folder


@pytest.fixture(scope="module")
def model(files: Path) -> LanguageModel:
    return load_model(str(files / "model"), dtype="float32")


@pytest.fixture(scope="module")
def corpus(files: Path) -> Corpus:
    return load(files / "texts.jsonl")


@pytest.fixture(scope="module")
def expected(model: LanguageModel, corpus: Corpus, files: Path) -> dict[str, bytes]:
    """What a single process with one thread writes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    capture(model, corpus, out=files / "single", **WHAT)
    torch.set_num_threads(before)
    return contents(files / "single")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


def wait_until(true: Callable[[], object], seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def finished(out: Path) -> int:
    return len(list(out.glob("shards/*.json")))


def spread(files: Path, corpus: Corpus, out: Path | str, **more: Any) -> ActivationStore:
    return capture_with_ray(
        str(files / "model"), corpus, out=out, model_dtype="float32", **WHAT, **more
    )


def test_without_ray_or_a_cluster_there_is_a_sentence(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not ray.is_initialized()  # so this test comes first
    with pytest.raises(AffectLensError, match=r"No Ray cluster answers at 127.0.0.1:9 .*refused"):
        capture_with_ray("any", corpus, out=tmp_path / "s", address="127.0.0.1:9")
    with pytest.raises(AffectLensError, match="No Ray cluster answers at nonsense"):
        capture_with_ray("any", corpus, out=tmp_path / "s", address="nonsense")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AffectLensError, match=r"pip install 'affectlens\[distributed\]'"):
        capture_with_ray("any", corpus, out=tmp_path / "s")


def test_the_store_is_that_of_one_process(
    cluster: None, files: Path, corpus: Corpus, expected: dict[str, bytes], tmp_path: Path
) -> None:
    ran = list[tuple[int, int]]()
    store = spread(files, corpus, tmp_path / "s", advance=lambda *n: ran.append(n))
    assert contents(tmp_path / "s") == expected
    assert len(ran) == store.info().shards > 20
    assert sum(texts for texts, _ in ran) == N_TEXTS
    store.verify()


def test_a_loaded_model_and_a_url_do_as_well(
    cluster: None,
    model: LanguageModel,
    corpus: Corpus,
    expected: dict[str, bytes],
    tmp_path: Path,
) -> None:
    ran = list[int]()
    options: dict[str, Any] = {**WHAT, "out": f"local://{tmp_path}/s", "threads": 1}
    capture_with_ray(model, corpus, workers=1, advance=lambda n, _: ran.append(n), **options)
    assert contents(tmp_path / "s") == expected
    capture_with_ray(model, corpus, workers=1, advance=lambda n, _: ran.append(n), **options)
    assert sum(ran) == N_TEXTS  # the second time there was nothing to run


@finds_processes
def test_a_killed_worker_loses_and_doubles_nothing(
    cluster: None,
    files: Path,
    corpus: Corpus,
    expected: dict[str, bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out, ran = tmp_path / "s", list[int]()
    thread = threading.Thread(
        target=spread, args=(files, corpus, out), kwargs={"advance": lambda n, _: ran.append(n)}
    )
    with caplog.at_level(logging.WARNING):
        thread.start()
        wait_until(lambda: finished(out) > 2)
        victim, *others = actors(os.getpid())
        for pid in (victim, *others):
            os.kill(pid, signal.SIGSTOP)
        assert 2 < finished(out) < len(expected) - 4  # in the middle of it
        os.kill(victim, signal.SIGKILL)
        for pid in others:
            os.kill(pid, signal.SIGCONT)
        thread.join(900)
    assert not thread.is_alive()
    assert contents(out) == expected
    assert sum(ran) == N_TEXTS
    assert any("worker was lost" in record.message for record in caplog.records)


_DRIVER = """
import sys
from affectlens.activations.distributed.ray_capture import capture_with_ray
from affectlens.datasets import load
folder, out = sys.argv[1:3]
capture_with_ray(folder + "/model", load(folder + "/texts.jsonl"), out=out, model_dtype="float32",
                 **{what!r})
"""


@finds_processes
def test_a_killed_driver_takes_its_actors_along_and_is_resumed(
    cluster: None, files: Path, corpus: Corpus, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "s"
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, "-c", _DRIVER.format(what=WHAT), str(files), str(out)]
    said = tmp_path / "said"  # a file: a pipe nobody reads would fill
    with said.open("wb") as errors:
        driver = subprocess.Popen(command, env=environment, stderr=errors)

    def under_way() -> bool:
        assert driver.poll() is None, said.read_text()
        return finished(out) > 2

    wait_until(under_way)
    working = actors(driver.pid, b"ray::Actor", b"ray::IDLE")  # one may not be ready yet
    driver.kill()
    driver.wait()
    assert working
    wait_until(lambda: not any(map(alive, working)))
    left = finished(out)
    assert 2 < left < len(expected) - 4
    with pytest.raises(ArtefactError, match="not finished"):
        ActivationStore.open(out)

    ran = list[int]()
    spread(files, corpus, out, workers=1, threads=1, advance=lambda *_: ran.append(1))
    assert contents(out) == expected
    assert len(ran) == len(expected) - 2 - left  # all but manifest, table and what was left


def test_other_weights_under_the_same_name_are_refused(
    cluster: None, files: Path, corpus: Corpus, tmp_path: Path
) -> None:
    shutil.copytree(files / "model", tmp_path / "model")
    loaded = load_model(str(tmp_path / "model"), dtype="float32")
    shutil.rmtree(tmp_path / "model")
    save_model(tmp_path / "model", seed=1)
    with pytest.raises(MismatchError, match=rf"other weights .* not {loaded.fingerprint}"):
        capture_with_ray(loaded, corpus, out=tmp_path / "s", workers=1)
    assert finished(tmp_path / "s") == 0


def test_what_an_actor_finds_wrong_is_said_in_a_sentence(
    cluster: None, files: Path, tmp_path: Path
) -> None:
    row = {"text": "and so on " * 200, "id": "endless"}
    (tmp_path / "own.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(DataError, match=r"^Record endless has"):
        spread(files, load(tmp_path / "own.jsonl"), tmp_path / "s", workers=1)


def test_an_actor_that_does_not_see_the_store_says_so(
    model: LanguageModel, corpus: Corpus, tmp_path: Path
) -> None:
    actor = Actor(Source.of(model, None, None), threads=1)
    work = plan_work(model, CaptureRequest(corpus, "resid_post", None, CaptureSettings()))
    with pytest.raises(ArtefactError, match=r"nowhere is not to be seen from .* share"):
        actor.open(work, str(tmp_path / "nowhere"))
    other = replace(work.spec.provenance, parameters={"code": "9.9/9"})
    with pytest.raises(MismatchError, match=r"version .* not 9.9/9; install the same"):
        actor.open(replace(work, spec=replace(work.spec, provenance=other)), str(tmp_path))


def test_cores_are_divided_among_the_actors(cluster: None) -> None:
    def threads(workers: int, given: int | None = None) -> int:
        return Share.of(ray, workers, threads=given, gpus=None, device="cpu").threads

    assert [threads(n) for n in (1, 2, 5)] == [2, 1, 1]
    assert threads(2, given=3) == 3
