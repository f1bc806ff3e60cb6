"""Compiled models: steered and read as if they were not, and unchanged afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch

from affectlens.models.hooking.hooks import Site, reading
from affectlens.models.loading import LanguageModel
from tests.conftest import make_tiny
from tests.steering.oracle import random_pack
from tests.steering.test_steering import spec
from tests.steering.test_ways_to_generate import PROMPT, generate, wanted

IDS = torch.tensor([PROMPT])
Run = Callable[[], torch.Tensor]


@pytest.fixture(autouse=True)
def _fresh() -> Generator[None, None, None]:
    torch.compiler.reset()
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    yield
    torch.compiler.reset()


def compiled(model: LanguageModel, way: str) -> Run:
    """A model compiled in some way (dynamo's eager backend traces, and needs no compiler)."""
    hf = model.hf

    def run(call: Any = hf) -> torch.Tensor:
        with torch.no_grad():
            return call(input_ids=IDS, use_cache=False).logits

    match way:
        case "wrapper":
            fast = torch.compile(hf, backend="eager")
            return lambda: run(fast)
        case "forward":
            hf.forward = torch.compile(hf.forward, backend="eager")
        case "in place":
            hf.compile(backend="eager")
        case "base":
            hf.model.compile(backend="eager")
        case "block":
            hf.model.layers[0].compile(backend="eager")
        case "wrapped block":
            hf.model.layers[2] = torch.compile(hf.model.layers[2], backend="eager")
        case "function":
            fast = torch.compile(lambda: hf(input_ids=IDS, use_cache=False).logits, backend="eager")
            return torch.no_grad()(fast)
        case _:
            raise ValueError(way)
    return run


WAYS = ("wrapper", "forward", "in place", "base", "block", "wrapped block", "function")


@pytest.mark.parametrize(
    ("way", "first"),
    [*((way, "before") for way in WAYS), ("wrapper", "inside"), ("block", "inside")],
)
def test_steered_inside_and_unsteered_outside(way: str, first: str) -> None:
    model = make_tiny("llama")
    pack = random_pack(model)
    requests = [spec("residual", "all", anger=2.0), spec("circuit", "all", fear=2.0)]
    with torch.no_grad():
        plain = model.hf(input_ids=IDS, use_cache=False).logits
        eager = list[torch.Tensor]()
        for request in requests:
            with pack.steer(model, request):
                eager.append(model.hf(input_ids=IDS, use_cache=False).logits)
    run = compiled(model, way)
    if first == "before":
        torch.testing.assert_close(run(), plain)
    for request, reference in zip(requests, eager, strict=True):
        with pack.steer(model, request):
            assert torch.equal(run(), reference)
        outside = run()
        torch.testing.assert_close(outside, plain)
        with pack.steer(model, "anger=0"):
            assert torch.equal(run(), outside)


def test_compiled_code_runs_again_outside() -> None:
    """The setting is undone: what was compiled is used, and what was not is compiled."""
    model = make_tiny("llama")
    pack = random_pack(model)
    graphs = list[Any]()

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    fast = torch.compile(model.hf, backend=backend)
    with torch.no_grad(), pack.steer(model, "anger=1"), pack.steer(model, "fear=1"):
        fast(input_ids=IDS, use_cache=False)
    assert not graphs
    with torch.no_grad():
        fast(input_ids=IDS, use_cache=False)
    assert graphs


@pytest.mark.parametrize("when", ["before", "inside"])
def test_static_caches_that_generate_compiles(when: str) -> None:
    """As they do by themselves on a GPU."""
    from transformers import CompileConfig

    config = CompileConfig(backend="eager", fullgraph=False, mode="default")
    config._compile_all_devices = True  # type: ignore[attr-defined]
    way: dict[str, Any] = {"cache_implementation": "static", "compile_config": config}
    model = make_tiny("llama")
    pack = random_pack(model)
    plain = generate(model, [PROMPT])
    if when == "before":
        assert generate(model, [PROMPT], **way) == plain
    request = spec("residual", "generated", anger=2.0)
    with pack.steer(model, request):
        got = generate(model, [PROMPT], **way)
    assert got == wanted(model, [PROMPT], "generated", {})
    assert generate(model, [PROMPT], **way) == plain


@pytest.mark.parametrize("way", ["base", "block"])
def test_readers_see_compiled_models(way: str) -> None:
    model = make_tiny("llama")
    sites = [Site(layer, kind) for layer in range(3) for kind in ("resid_post", "z", "mlp_post")]

    def read() -> dict[Site, torch.Tensor]:
        seen: dict[Site, torch.Tensor] = {}
        with torch.no_grad(), reading(model.anatomy, sites, lambda s, x: seen.update({s: x})):
            model.anatomy.base(input_ids=IDS, use_cache=False)
        return seen

    plain = read()
    run = compiled(model, way)
    run()
    got = read()
    assert set(got) == set(plain)
    assert all(torch.equal(got[site], plain[site]) for site in sites)


def test_circuits_of_a_compiled_model() -> None:
    """Influence reads and replays single blocks."""
    from affectlens.circuits.last_token_replay import last_token

    model = make_tiny("llama")
    plain = last_token(model, PROMPT)
    compiled(model, "block")()
    model.hf.model.compile(backend="eager")
    model.anatomy.base(input_ids=IDS[:, :-1], use_cache=True)
    again = last_token(model, PROMPT)
    torch.testing.assert_close(again.resid_mid, plain.resid_mid)


def test_models_that_were_compiled_before_they_are_loaded() -> None:
    """All of it or one block: the same model, with the same fingerprint, steered as ever."""
    from affectlens.models.loading import load_model
    from tests.conftest import tiny_hf, tiny_tokenizer

    plain = make_tiny("llama")
    pack = random_pack(plain)
    for whole in (True, False):
        hf = tiny_hf("llama")
        if whole:
            given = torch.compile(hf, backend="eager")
        else:
            hf.model.layers[1] = torch.compile(hf.model.layers[1], backend="eager")
            given = hf
        model = load_model(given, tokenizer=tiny_tokenizer())
        assert model.fingerprint == plain.fingerprint
        request = spec("circuit", "all", anger=2.0)
        with torch.no_grad(), pack.steer(plain, request):
            wanted = plain.hf(input_ids=IDS, use_cache=False).logits
        with torch.no_grad(), pack.steer(model, request):
            assert torch.equal(given(input_ids=IDS, use_cache=False).logits, wanted)
