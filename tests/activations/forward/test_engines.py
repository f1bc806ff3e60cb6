"""What the capability table says is what the engines do, and the model stays as it was."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch.overrides import TorchFunctionMode

from affectlens.activations.forward.engines import (
    ENGINES,
    Capabilities,
    Engine,
    EngineRow,
    capabilities,
    capability_table,
    open_engine,
)
from affectlens.activations.forward.engines.transformers import TransformersEngine
from affectlens.core.errors import ModelError, UnknownNameError
from affectlens.core.places import EXTRA_KINDS, KINDS, POINTS, Site, WritePoint
from affectlens.models.hooking.hooks import writing
from affectlens.models.loading import LanguageModel, load_model
from tests.conftest import FAMILIES, N_LAYERS, make_tiny, tiny_hf, tiny_tokenizer

ROWS = ((5, 17, 33, 42, 8, 99, 120), (60, 61, 62))
ALL_KINDS = (*KINDS, *EXTRA_KINDS)


class Watch(TorchFunctionMode):
    """Notes which weights are multiplied with, and how often attention is fused."""

    def __init__(self) -> None:
        super().__init__()
        self.used: set[int] = set()
        self.fused = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.fused += func is torch.nn.functional.scaled_dot_product_attention
        if func is torch.nn.functional.linear:
            self.used.add(args[1].data_ptr())
        return func(*args, **(kwargs or {}))


def watched(name: str, model: LanguageModel, sites: list[Site], side: str = "right") -> Watch:
    ids, mask = model.encode_batch(ROWS, side)
    engine = open_engine(name, model, key_length=len(ROWS[0]))
    engine.forward(ids, mask, sites, lambda *_: None)  # builds what it needs
    with Watch() as watch:
        engine.forward(ids, mask, sites, lambda *_: None)
    return watch


@pytest.mark.parametrize("claim", capabilities(), ids=lambda claim: claim.name)
@pytest.mark.parametrize("kind", [kind for kind in ALL_KINDS if kind != "expert_weights"])
def test_kinds_are_read_or_refused_as_claimed(
    claim: Capabilities, kind: str, tiny_model: Any
) -> None:
    model = tiny_model("llama")
    engine = open_engine(claim.name, model, key_length=9)
    ids, mask = model.encode_batch(ROWS)
    seen: list[Any] = []
    site = Site(1, kind)
    if kind in claim.kinds:
        engine.forward(ids, mask, [site], lambda *args: seen.append(args))
        assert [(site, value.shape) for site, value in seen] == [
            (site, (*ids.shape, engine.width(site)))
        ]
    else:
        for attempt in (
            lambda: engine.width(site),
            lambda: engine.forward(ids, mask, [Site(0, "z"), site], lambda *a: seen.append(a)),
        ):
            with pytest.raises(UnknownNameError, match=rf"{claim.name} engine .*{site.hook_name}"):
                attempt()
        assert not seen


@pytest.mark.parametrize("claim", capabilities(), ids=lambda claim: claim.name)
def test_passes_end_where_claimed(claim: Capabilities, tiny_model: Any) -> None:
    model = tiny_model("llama")
    weights = [block.down_proj.weight.data_ptr() for block in model.anatomy.blocks]
    logits = model.anatomy.unembed.weight.data_ptr()
    with torch.no_grad(), Watch() as whole:
        model.hf(torch.tensor([ROWS[0]]))
    assert {*weights, logits} <= whole.used  # what is run is seen
    for layer in range(N_LAYERS):
        used = watched(claim.name, model, [Site(0, "z"), Site(layer, "resid_post")]).used
        run = [weight in used for weight in weights]
        assert run[: layer + 1] == [True] * (layer + 1)
        assert (not any(run[layer + 1 :])) == claim.stops_early or layer == N_LAYERS - 1
        assert (logits not in used) == claim.logits_skipped
    used = watched(claim.name, model, [Site(1, "attn_out")]).used
    assert weights[0] in used
    assert (weights[1] not in used) == claim.stops_early


NO_PATTERN = {("opt", "transformer_lens")}
"""TransformerLens shows no patterns of these; asking for them is an error in words."""


@pytest.mark.parametrize("claim", capabilities(), ids=lambda claim: claim.name)
def test_attention_is_fused_as_claimed(claim: Capabilities, tiny_model: Any) -> None:
    for family in FAMILIES:
        if (family, claim.name) in NO_PATTERN:
            continue
        model = tiny_model(family)
        sites = [Site(N_LAYERS - 1, "resid_post")]
        if "pattern" in claim.kinds:
            sites += [Site(layer, "pattern") for layer in range(N_LAYERS)]
        fused = watched(claim.name, model, sites).fused
        assert fused == (N_LAYERS if claim.keeps_fused_attention else 0)


@pytest.mark.parametrize("claim", capabilities(), ids=lambda claim: claim.name)
def test_left_padding_as_claimed(claim: Capabilities, each_model: LanguageModel) -> None:
    assert claim.left_padding
    engine = open_engine(claim.name, each_model)
    rows: dict[str, Any] = {}
    for side in ("left", "right"):
        ids, mask = each_model.encode_batch(ROWS, side)
        site = Site(N_LAYERS - 1, "resid_post")
        engine.forward(
            ids, mask, [site], lambda _, value, m=mask, s=side: rows.update({s: value[m.bool()]})
        )
    torch.testing.assert_close(rows["left"], rows["right"], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_remote_runs_read_the_same(family: str, tiny_model: Any) -> None:
    """As far as it can be tested here: nnsight's imitation of its service."""
    model = tiny_model(family)
    ids, mask = model.encode_batch(ROWS, "left")
    sites = [Site(layer, kind) for layer in range(2) for kind in KINDS]
    both: list[dict[Site, Any]] = []
    for remote in (False, "local"):
        seen: dict[Site, Any] = {}
        engine = open_engine("nnsight", model, remote=remote)
        engine.forward(
            ids, mask, sites, lambda site, value, seen=seen: seen.update({site: value.clone()})
        )
        both.append(seen)
    assert all(torch.equal(both[0][site], both[1][site]) for site in sites)
    assert [claim.name for claim in capabilities() if claim.remote] == ["nnsight"]
    with pytest.raises(ModelError, match="hub id"):
        open_engine("nnsight", model, remote=True).forward(ids, mask, sites, lambda *_: None)


def state_of(model: LanguageModel) -> Any:
    """Everything of a model that an engine could change."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    hf, tokenizer = model.hf, model.tokenizer
    with torch.no_grad():
        logits = hf(torch.tensor([ROWS[0]])).logits
    return {
        "modules": [(name, id(m), type(m)) for name, m in hf.named_modules()],
        "attributes": [sorted(vars(module)) for module in hf.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in hf.modules()
        ],
        "parameters": [
            (name, id(p), p.requires_grad, p._version) for name, p in hf.named_parameters()
        ],
        "buffers": [(name, id(b), b._version) for name, b in hf.named_buffers()],
        "config": copy.deepcopy(hf.config.to_dict()),
        "attention": (hf.config._attn_implementation, sorted(vars(ALL_ATTENTION_FUNCTIONS))),
        "tokenizer": (tokenizer.padding_side, tokenizer.pad_token, tokenizer.bos_token),
        "logits": logits.tolist(),
        "gradients": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_stays_as_it_was(family: str, name: str) -> None:
    model = make_tiny(family)
    before = state_of(model)
    kinds = next(claim.kinds for claim in capabilities() if claim.name == name)
    left_out = {"resid_mid", "expert_weights"} | (
        {"pattern"} if (family, name) in NO_PATTERN else set()
    )
    kinds = tuple(kind for kind in kinds if kind not in left_out)
    engine = open_engine(name, model, key_length=9)
    ids, mask = model.encode_batch(ROWS, "left")
    engine.forward(ids, mask, [Site(1, kind) for kind in kinds], lambda *_: None)
    assert state_of(model) == before


def test_patterns_that_an_engine_does_not_show_are_refused() -> None:
    for family, name in NO_PATTERN:
        model = make_tiny(family)
        engine = open_engine(name, model, key_length=9)
        ids, mask = model.encode_batch(ROWS)
        with pytest.raises(ModelError, match="hook_pattern"):
            engine.forward(ids, mask, [Site(1, "pattern")], lambda *_: None)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "olmo2"])
def test_engines_see_what_is_written_into_the_model(
    family: str, point: str, tiny_model: Any
) -> None:
    model = tiny_model(family)
    ids, mask = model.encode_batch(ROWS)
    values: list[torch.Tensor] = []

    def run(name: str) -> None:
        engine = open_engine(name, model)
        engine.forward(
            ids, mask, [Site(2, "resid_post")], lambda _, v: values.append(v[mask.bool()].clone())
        )

    run("transformers")
    with writing(model.anatomy, {WritePoint(1, point): lambda value: 1.5 * value + 0.3}):
        for name in ENGINES:
            run(name)
    plain, *steered = values
    for value in steered:
        assert (value - plain).norm() > 0.02 * plain.norm()
        torch.testing.assert_close(value, steered[0], atol=2e-5, rtol=2e-5)


class Broken(Exception):
    pass


@pytest.mark.parametrize("kind", ["mlp_out", "pattern"])
@pytest.mark.parametrize("claim", capabilities(), ids=lambda claim: claim.name)
def test_errors_of_a_reader_come_out_and_leave_nothing_behind(
    claim: Capabilities, kind: str
) -> None:
    if kind not in claim.kinds:
        return
    model = make_tiny("llama")
    before = state_of(model)
    engine = open_engine(claim.name, model, key_length=9)
    ids, mask = model.encode_batch(ROWS)

    def read(*_: Any) -> None:
        raise Broken("not now")

    with pytest.raises(Broken, match="not now"):
        engine.forward(ids, mask, [Site(0, kind), Site(2, "resid_post")], read)
    assert state_of(model) == before
    seen: list[Site] = []
    engine.forward(ids, mask, [Site(2, "resid_post")], lambda site, _: seen.append(site))
    assert seen == [Site(2, "resid_post")]


@pytest.mark.parametrize("name", ENGINES)
def test_sites_that_do_not_exist(name: str, tiny_model: Any) -> None:
    for family, site, match in (
        ("llama", Site(9, "z"), "layer '9'"),
        ("gpt_neox", Site(1, "resid_mid"), "parallel"),
    ):
        model = tiny_model(family)
        ids, mask = model.encode_batch(ROWS)
        with pytest.raises(UnknownNameError, match=match):
            open_engine(name, model).forward(ids, mask, [site], lambda *_: None)


def test_a_site_that_is_never_reached_is_named() -> None:
    model = make_tiny("llama")
    ids, mask = model.encode_batch(ROWS)
    model.hf.config.num_hidden_layers = 2  # Transformers leaves the last block out
    with pytest.raises(ModelError, match=r"never ran blocks\.2\.hook_resid_pre"):
        open_engine("transformers", model).forward(
            ids, mask, [Site(0, "z"), Site(2, "resid_pre")], lambda *_: None
        )


def test_engines_and_options_are_named() -> None:
    model = make_tiny("llama")
    with pytest.raises(UnknownNameError, match="'transformer'; choose one of: transformers"):
        open_engine("transformer", model)
    with pytest.raises(UnknownNameError, match="option of the transformers engine 'remote'"):
        open_engine("transformers", model, remote=True)
    hf = tiny_hf("llama")
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    bridge = build_bridge_from_module(
        hf, type(hf).__name__, hf_config=hf.config, tokenizer=tiny_tokenizer()
    )
    bridged = load_model(bridge)
    ids, mask = bridged.encode_batch(ROWS)
    with pytest.raises(ModelError, match="TransformerBridge"):
        open_engine("nnsight", bridged).forward(ids, mask, [Site(0, "z")], lambda *_: None)


def test_the_table_shows_every_claim() -> None:
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capability_table().splitlines()
    ]
    assert lines[0][1:] == [f"`{name}`" for name in ENGINES]
    table = {line[0]: line[1:] for line in lines[2:-1]}
    marks = {True: "yes", False: "no"}
    for kind in ALL_KINDS:
        assert table[f"`{kind}`"] == [marks[kind in claim.kinds] for claim in capabilities()]
    assert table["keeps fused attention"] == [
        marks[claim.keeps_fused_attention] for claim in capabilities()
    ]
    assert len(table) == len(ALL_KINDS) + 5


def test_an_engine_of_ones_own_is_one_row() -> None:
    """One that reads nothing but what goes into the first block."""

    class Embedder(Engine):
        capabilities: ClassVar[Capabilities] = replace(
            TransformersEngine.capabilities, name="embedder", kinds=("resid_pre",)
        )

        def _run(self, inputs: Any, sites: Any, read: Any) -> None:
            for site in sites:
                read(site, self.model.hf.get_input_embeddings()(inputs["input_ids"]))

    model, site, values = make_tiny("llama"), Site(0, "resid_pre"), list[torch.Tensor]()
    ids = torch.tensor([[5, 6, 7]])
    with ENGINES.adding(EngineRow(Embedder)):
        assert "`embedder`" in capability_table()
        for name in ("embedder", "transformers"):
            engine = open_engine(name, model)
            engine.forward(ids, torch.ones_like(ids), [site], lambda _, v: values.append(v.clone()))
    torch.testing.assert_close(*values)
    with pytest.raises(UnknownNameError, match=r"^Unknown engine 'embedder'"):
        open_engine("embedder", model)
