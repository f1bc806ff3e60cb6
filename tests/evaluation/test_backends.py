"""The HTTP side of the vLLM backend against a real HTTP server; real vLLM is in tests_vllm."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from affectlens.core import DataError, MismatchError
from affectlens.datasets import load
from affectlens.evaluation import Request, Vllm, arm_requests, generate_replies, random_pack
from affectlens.models.generation.generation import GenerationSettings, encode_prompt
from affectlens.models.loading import LanguageModel
from affectlens.serving.checking import Server
from affectlens.steering import SteeringPack, SteeringSpec
from tests.evaluation.stub import Stub, serving
from tests.steering.oracle import EMOTIONS
from tests.steering.oracle import random_pack as some_pack

SETTINGS = GenerationSettings(max_new_tokens=12, min_new_tokens=2, repetition_penalty=1.3)


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> LanguageModel:
    return tiny_model("llama", max_position_embeddings=2048)


@pytest.fixture(scope="module")
def pack(model: LanguageModel) -> SteeringPack:
    return some_pack(model)


@pytest.fixture
def stub(model: LanguageModel, pack: SteeringPack) -> Stub:
    return Stub(model, {"mine": pack, "random": random_pack(pack)})


@pytest.fixture
def url(stub: Stub) -> Generator[str]:
    with serving(stub) as address:
        yield address


def connect(url: str, model: LanguageModel, pack: SteeringPack) -> Vllm:
    files = {Path("run/pack.safetensors"): pack, Path("run/random.st"): random_pack(pack)}
    return Vllm.connect(Server(url, timeout=60), model, files)


@pytest.mark.parametrize("arm", ["unsteered", "prompted", "residual", "circuit", "random"])
def test_replies_are_those_of_the_other_backend(
    model: LanguageModel, pack: SteeringPack, stub: Stub, url: str, arm: str
) -> None:
    events = list(load("events"))[:2]
    requests = arm_requests(arm, events, EMOTIONS)
    used = {"residual": pack, "circuit": pack, "random": random_pack(pack)}.get(arm)
    backend, told = connect(url, model, pack), list[int]()
    there = generate_replies(
        model, arm, requests, SETTINGS, pack=used, backend=backend, advance=told.append
    )
    here = generate_replies(model, arm, requests, SETTINGS, pack=used)
    assert there == here and sum(told) == len(requests)
    assert {len(r.text) > 0 for r in here} == {True}
    prompts = [list(encode_prompt(model, r.event.text, r.system)) for r in requests]
    assert sorted(b["prompt"] for b in stub.bodies) == sorted(prompts)
    named = {b["vllm_xargs"].get("affectlens_pack") for b in stub.bodies}
    assert named == {{"residual": "mine", "circuit": "mine", "random": "random"}.get(arm)}


def test_a_request_leaves_nothing_to_the_server(
    model: LanguageModel, pack: SteeringPack, stub: Stub, url: str
) -> None:
    event = load("events").records[0]
    asked = [Request(event, ""), Request(event, "anger", SteeringSpec({"anger": 0.5}))]
    generate_replies(model, "x", asked, SETTINGS, pack=pack, backend=connect(url, model, pack))
    plain, steered = sorted(stub.bodies, key=lambda b: b["vllm_xargs"]["affectlens"] != "none")
    assert plain["vllm_xargs"] == {"affectlens": "none", "affectlens_pack": "mine"}
    assert steered["vllm_xargs"]["affectlens"] == str(pack.resolve("anger=0.5"))
    assert ";positions=" in steered["vllm_xargs"]["affectlens"]  # not the server's to choose
    assert plain["stop_token_ids"] == list(model.eos_ids)
    assert (plain["max_tokens"], plain["min_tokens"], plain["temperature"]) == (12, 2, 0.0)
    assert plain["repetition_penalty"] == 1.3
    neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
    neutral |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert {name: plain[name] for name in neutral} == neutral
    assert "ignore_eos" not in plain


def refusing(status: int, message: str) -> Callable[[Any], tuple[int, Any]]:
    return lambda _body: (status, {"error": {"message": message}})


PACKS = "/plugins/affectlens/packs"


@pytest.mark.parametrize(
    ("path", "answer", "says"),
    [
        (PACKS, lambda _b: (404, {"detail": "Not Found"}), "runs without AffectLens' plug-in"),
        (PACKS, refusing(400, "This server has no steering pack."), "has no steering pack"),
        (PACKS, refusing(401, "Give the key."), "set VLLM_API_KEY"),
        (PACKS, lambda _b: (200, b"<html>"), "is it a vLLM server"),
        ("/v1/models", lambda _b: (200, {"data": []}), "serves no model"),
        ("/v1/models", lambda _b: (200, b"hello"), "is it a vLLM server"),
        ("/v1/models", refusing(503, "Loading."), "Loading."),
    ],
)
def test_what_is_not_our_server(
    model: LanguageModel, pack: SteeringPack, stub: Stub, url: str, path: str, answer: Any,
    says: str,
) -> None:  # fmt: skip
    stub.changed[path] = answer
    with pytest.raises(DataError, match=says) as caught:
        connect(url, model, pack)
    assert url in str(caught.value)


def test_nobody_there(model: LanguageModel, pack: SteeringPack) -> None:
    with serving(Stub(model, {})) as url:
        pass
    with pytest.raises(DataError, match="is it running"):
        connect(url, model, pack)
    with pytest.raises(DataError, match="Give the server's address"):
        connect("127.0.0.1:8000", model, pack)


def test_other_packs(model: LanguageModel, pack: SteeringPack, stub: Stub, url: str) -> None:
    other = some_pack(model, seed=7)
    stub.packs = {"other": other, "random": random_pack(pack)}
    with pytest.raises(MismatchError) as caught:
        connect(url, model, pack)
    for part in ("other", other.fingerprint, pack.fingerprint, "--pack run/pack.safetensors"):
        assert part in str(caught.value)


def test_pack_of_another_model(tiny_model: Any, pack: SteeringPack, url: str) -> None:
    with pytest.raises(MismatchError, match="was made for model"):
        connect(url, tiny_model("llama", 1), pack)


def test_another_model_is_served(
    tiny_model: Any, model: LanguageModel, pack: SteeringPack, stub: Stub, url: str
) -> None:
    prompt = encode_prompt(model, "The bus was late.")
    backend = connect(url, model, pack)
    backend.require_model(model, prompt)
    stub.model = tiny_model("llama", 1)
    with pytest.raises(MismatchError, match="another model than"):
        backend.require_model(model, prompt)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (refusing(400, "max_tokens is too large"), "max_tokens is too large"),
        (lambda _b: (200, {"choices": [{"text": "hi"}]}), "return_token_ids"),
        (
            lambda b: (
                200,
                {"choices": [{"token_ids": [1], "prompt_token_ids": b["prompt"][:-1]}]},
            ),
            "return_token_ids",
        ),
    ],
)
def test_a_request_that_fails_ends_it(
    model: LanguageModel, pack: SteeringPack, stub: Stub, url: str, answer: Any, says: str
) -> None:
    seen: list[Any] = []

    def count(body: Any) -> Any:
        seen.append(body)
        return answer(body)

    backend = connect(url, model, pack)
    stub.changed["/v1/completions"] = count
    requests = arm_requests("residual", list(load("events"))[:200], EMOTIONS)
    with pytest.raises(DataError, match=says):
        generate_replies(model, "residual", requests, SETTINGS, pack=pack, backend=backend)
    assert len(seen) < len(requests)


def test_what_vllm_cannot_do(model: LanguageModel, pack: SteeringPack, url: str) -> None:
    settings = GenerationSettings(no_repeat_ngram=3)
    requests = arm_requests("unsteered", list(load("events"))[:1])
    with pytest.raises(DataError, match="no_repeat_ngram"):
        generate_replies(model, "unsteered", requests, settings, backend=connect(url, model, pack))


def test_steering_needs_a_pack(model: LanguageModel) -> None:
    requests = arm_requests("circuit", list(load("events"))[:1])
    with pytest.raises(DataError, match="give the pack"):
        generate_replies(model, "circuit", requests, SETTINGS)


def test_a_saved_pack_is_recognised(pack: SteeringPack, tmp_path: Path) -> None:
    for i, one in enumerate((pack, random_pack(pack))):
        one.save(tmp_path / f"{i}.safetensors")
        assert SteeringPack.load(tmp_path / f"{i}.safetensors").fingerprint == one.fingerprint
