"""Every tensor is made where the model is.

On PyTorch's meta device tensors have shapes and no values, and an operation that mixes one with a
tensor of the CPU raises. So a model that lies there proves for any device that nothing is made on
the wrong one, without a GPU. Indices of a gather may be anywhere there, so of these the device is
looked at. What needs values is left out: choosing tokens, checks of numbers, picking the tokens of
replies in refinement.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from affectlens.activations.capture import prepare
from affectlens.activations.forward.gather import make_batch
from affectlens.circuits import last_token_replay
from affectlens.circuits.attribution.postnorm import token_scale
from affectlens.circuits.influence import logit_direction, push_all
from affectlens.core.places import Site, WritePoint
from affectlens.models.anatomy.anatomy import find_anatomy
from affectlens.models.generation.decoding import likeliest, penalise_repetition, sample
from affectlens.models.hooking.hooks import reading, writing
from affectlens.models.identity import WatchedFingerprint
from affectlens.models.linear_map import linear_map, linear_offset, pushed_identity
from affectlens.models.loading import LanguageModel
from affectlens.models.placement import device_of
from affectlens.models.step import step
from affectlens.steering import SteeringSpec
from affectlens.steering.operators import OPERATORS
from affectlens.steering.positions import inside, intervals
from tests.circuits.helpers import EMOTIONS, small_corpus
from tests.conftest import D_MODEL, N_LAYERS, VOCAB, tiny_config, tiny_tokenizer
from tests.steering.oracle import PROMPTS, random_pack
from tests.steering.test_gates import gated_pack

META = torch.device("meta")


@pytest.fixture(scope="module", params=["llama", "gemma3", "gpt2"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    """A tiny model without values."""
    from transformers import AutoModelForCausalLM

    with META:
        # Other kinds of attention look at the values of the mask first.
        hf: Any = AutoModelForCausalLM.from_config(
            tiny_config(request.param), attn_implementation="eager"
        ).eval()
    hf.config.pad_token_id = None  # else GPT-2 looks for padding among the tokens
    watched = WatchedFingerprint(hf, "none")
    return LanguageModel("meta", hf, tiny_tokenizer(), find_anatomy(hf), watched)


@pytest.fixture
def twin(model: LanguageModel, tiny_model: Any) -> LanguageModel:
    """The same architecture with values, on the CPU."""
    return tiny_model(str(model.hf.config.model_type).removesuffix("_text"))


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device=META)


def test_mixing_devices_would_be_seen() -> None:
    for mix in (torch.mul, lambda a, b: torch.cat([a, b])):
        with pytest.raises(RuntimeError, match="not on the expected device"):
            mix(meta(3), torch.zeros(3))


def test_what_a_capture_gathers(model: LanguageModel, twin: LanguageModel) -> None:
    positions = ["last", "mean:reply", "all"]
    plan = prepare(
        twin, small_corpus(), sites="resid_post,z,mlp_post,attn_out", positions=positions
    ).plan
    batch = make_batch(plan, plan.batches[0], model.device, "right")
    indices = [t for pick in batch.picks.values() for t in (pick.index, pick.bags)]
    assert {t.device for t in (batch.ids, batch.mask, *indices) if t is not None} == {META}


def test_hooks(model: LanguageModel) -> None:
    ids, mask = model.encode_batch(PROMPTS, "left")
    assert ids.device == mask.device == model.device == META
    seen: list[torch.device] = []
    change = meta(D_MODEL)
    writers = {
        WritePoint(1, point): lambda value: value + change
        for point in ("resid_post", "o_proj_out", "down_proj_out")
    }
    sites = [Site(1, kind) for kind in ("resid_pre", "resid_post", "z", "mlp_post")]
    with (
        torch.no_grad(),
        writing(model.anatomy, writers),
        reading(model.anatomy, sites, lambda _site, value: seen.append(value.device)),
    ):
        model.anatomy.base(input_ids=ids, attention_mask=mask)
    assert seen == [META] * len(sites)


@pytest.mark.parametrize("operator", list(OPERATORS))
@pytest.mark.parametrize("everywhere", [True, False])
def test_tables_of_every_spec(twin: LanguageModel, operator: str, everywhere: bool) -> None:
    spec = SteeringSpec({"anger": 1.0}, operator=operator, mode="residual", unit="natural")
    table = random_pack(twin).table([spec, None], device=META)
    rows = torch.tensor(table.rows, device=META)
    hidden = meta(2, 5, D_MODEL)
    bounds = intervals([table.positions[row] for row in table.rows], [3, 4], META)
    on = inside(torch.arange(5, device=META).expand(2, -1), bounds)
    for site in table.sites.values():
        found = site.apply(hidden, rows, None if everywhere else on)
        assert (found.device, found.shape) == (META, hidden.shape)
    assert table.sites


def test_gates(twin: LanguageModel) -> None:
    pack = gated_pack(twin)
    table = pack.table([pack.resolve("anger=1;gate=anger>0.4"), None], device=META)
    assert table.gates
    rows = torch.tensor(table.rows, device=META)
    for gate in table.gates:
        assert gate.open(meta(2, 5, D_MODEL), rows).device == META


def test_contributions(model: LanguageModel) -> None:
    v = torch.randn(len(EMOTIONS), D_MODEL)
    for part in model.anatomy.blocks:
        there = v.to(device_of(part.block))
        maps = (part.W_O().flatten(0, 1), part.W_down())
        assert {(there @ weight.T).device for weight in maps} == {META}
        assert part.b_O() is None or part.b_O().device == META
    assert token_scale(meta(2, D_MODEL), meta(2, D_MODEL), meta(D_MODEL)).device == META


def test_linear_maps() -> None:
    module = torch.nn.Linear(7, 5, device=META)
    for found in (linear_map(module), pushed_identity(module, chunk=3)):
        assert (found.device, found.shape) == (META, (7, 5))
    assert linear_offset(module).device == META


def test_influence(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_token_replay, "_check", lambda _token: None)  # looks at values
    token = last_token_replay.last_token(model, PROMPTS[0])
    vectors = torch.randn(len(EMOTIONS), N_LAYERS, 2, D_MODEL).to(model.device)
    base, rows = push_all(token, vectors, meta(2, N_LAYERS, 2), 4)
    assert base.device == rows.device == META
    assert rows.shape == (2, N_LAYERS, 2, len(EMOTIONS), D_MODEL)
    assert logit_direction(model, [(3,), (7, 9), (4,)]).device == META


def test_a_step_of_generation(model: LanguageModel) -> None:
    from transformers import DynamicCache

    ids, mask = model.encode_batch([[5, 6, 7], [8, 9, 10]])
    cache = DynamicCache(config=model.hf.config)
    with torch.no_grad():
        logits = step(model.hf, ids, mask, cache)
        mask = torch.cat([mask, mask.new_ones(2, 1)], dim=1)
        logits = step(model.hf, likeliest(logits)[:, None], mask, cache)
    penalise_repetition(logits, ids, 1.1)
    assert (logits.device, logits.shape) == (META, (2, VOCAB))
    assert sample(logits, meta(2), 0.7, 0.9).device == META
