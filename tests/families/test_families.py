"""Every family: what is read, summed and steered is what plain hooks find, one text at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

import affectlens as al
from affectlens.core.artefact import Provenance
from affectlens.core.errors import ModelError, UnknownNameError
from affectlens.core.places import KINDS, Site
from affectlens.datasets import Corpus, Message, Record
from affectlens.models.anatomy.description import anatomy_without_weights
from affectlens.models.anatomy.levels import has, levels
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.models.generation.generation import generate_ids
from tests.conftest import tiny_tokenizer
from tests.families.document import PAGE, row
from tests.families.matrix import FAMILIES, build, shell
from tests.families.reference import Reference

TOLERANCE = 2e-4
NEW = 4
SETTINGS = GenerationSettings(max_new_tokens=NEW, repetition_penalty=1.0)
TEXTS = (
    "The train was cancelled and I am so angry about it, and nobody even said sorry to us at all.",
    "So am I.",
    "What a lovely surprise, thank you! I feel happy today.",
)


@dataclass(frozen=True, eq=False)
class Tried:
    """A family's model, loaded, and its reference."""

    name: str
    model: al.LanguageModel
    reference: Reference
    ids: list[list[int]]


@pytest.fixture(scope="module")
def tried(family_name: str) -> Tried:
    """The model of a family."""
    hf = build(family_name)
    tokenizer = tiny_tokenizer()
    model = al.load_model(hf, tokenizer=tokenizer)
    reference = Reference(hf, FAMILIES[family_name])
    return Tried(family_name, model, reference, [tokenizer(text)["input_ids"] for text in TEXTS])


def error(got: Any, wanted: Any) -> float:
    """Relative error."""
    return float((got - wanted).norm() / wanted.norm().clamp_min(1e-9))


def corpus() -> Corpus:
    """The texts."""
    records = [
        Record(f"t{i}", (Message("text", text),), "anger", None, f"g{i}", "", "fit")
        for i, text in enumerate(TEXTS)
    ]
    return Corpus("t", "texts", tuple(records))


def test_its_config_tells_the_same_without_weights(tried: Tried) -> None:
    found = anatomy_without_weights(shell(tried.name))
    if tried.name.startswith("gemma4") and not tried.name.endswith("samehd"):
        assert found is None  # each block is multiplied by a number that is stored
    else:
        assert found is not None
        assert levels(found) == levels(tried.model.anatomy)


def test_it_has_what_its_modules_have(tried: Tried) -> None:
    anatomy = tried.model.anatomy
    assert anatomy.n_layers == len(tried.reference.blocks)
    found = {
        (n, kind)
        for n, part in enumerate(anatomy.blocks)
        for kind in ("z", "mlp_post", "resid_mid")
        if has(part, Site(n, kind))
    }
    family = tried.reference.family
    if tried.name == "opt_postnorm350m":  # its MLP lies under a norm with the stream
        assert found == {(n, kind) for n in range(3) for kind in ("z", "resid_mid")}
    else:
        assert found == tried.reference.sites(), family


@pytest.mark.parametrize("padding", ["right", "left"])
def test_capture_equals_plain_hooks(tried: Tried, padding: str) -> None:
    model = tried.model
    blocks = model.anatomy.blocks
    sites = [Site(p.layer, k) for p in blocks for k in KINDS if has(p, Site(p.layer, k))]
    options: dict[str, Any] = {"positions": "all", "max_tokens_per_batch": 400}
    if padding == "left" and not model.padding.upto(64).left:
        with pytest.raises(al.AffectLensError, match="Padding on the left changes what"):
            al.capture(model, corpus(), sites=sites, padding="left", **options)
        return
    store = al.capture(model, corpus(), sites=sites, padding=padding, **options)
    runs = [tried.reference.run(ids)[0] for ids in tried.ids]
    for site in sites:
        key = (site.layer, site.kind)
        if all(key in run for run in runs) and not _normed_stream(tried.name, site.kind):
            wanted = torch.cat([run[key] for run in runs])
            assert error(store.to_torch(site, "all"), wanted) < TOLERANCE, key
    for n, part in enumerate(blocks):
        if part.attn_adds and part.mlp_adds and part.mid_reader is None:  # parallel
            value = [
                store.to_torch(Site(n, k), "all") for k in ("resid_pre", "attn_out", "mlp_out")
            ]
            post = store.to_torch(Site(n, "resid_post"), "all")
            assert error(sum(value), post) < TOLERANCE


def _normed_stream(name: str, kind: str) -> bool:
    """Whether subtraction does not give what a sublayer adds: the stream is normed on its way."""
    return name in ("minimax", "opt_postnorm350m", "rwkv") and kind in ("attn_out", "mlp_out")


def test_its_base_ends_with_hidden_states(tried: Tried) -> None:
    """Those that the unembedding makes logits of: perplexity and refining begin there."""
    model, ids = tried.model, torch.tensor([list(tried.ids[0])])
    with torch.no_grad():
        hidden = model.anatomy.base(input_ids=ids).last_hidden_state
        wanted, found = model.hf(input_ids=ids).logits, model.logits(hidden)
    assert hidden.shape == (1, ids.shape[1], hidden.shape[-1])
    assert error(found, wanted) < TOLERANCE


def test_units_sum_to_their_projection(tried: Tried) -> None:
    seen = tried.reference.run(tried.ids[0])[0]
    for part in tried.model.anatomy.blocks:
        if part.o_proj is not None:
            weights = part.W_O()
            z = seen[part.layer, "z"].unflatten(-1, (part.n_heads, -1))
            total = torch.einsum("thd,hdm->tm", z, weights)
            total = total if part.b_O() is None else total + part.b_O()
            assert error(total, seen[part.layer, "z out"]) < TOLERANCE
        if part.down_proj is not None:
            total = seen[part.layer, "mlp_post"] @ part.W_down()
            total = total if part.b_down() is None else total + part.b_down()
            assert error(total, seen[part.layer, "mlp_post out"]) < TOLERANCE


def test_more_than_a_layer_has_is_refused_with_its_reason(tried: Tried) -> None:
    for part in tried.model.anatomy.blocks:
        for kind in KINDS:
            site = Site(part.layer, kind)
            experts = kind == "mlp_post" and part.experts is not None  # read by the engine itself
            if not has(part, site) and not experts:
                with pytest.raises(UnknownNameError, match=f"in block {part.layer} "):
                    al.capture(tried.model, corpus(), sites=[site])


def pack(model: al.LanguageModel) -> al.SteeringPack:
    """Random vectors at the outputs of two blocks."""
    layers = (0, model.n_layers - 1)
    generator = torch.Generator().manual_seed(1)
    emotions = ("anger", "fear")
    vectors = torch.randn(2, 2, model.d_model, generator=generator) * 2
    return al.SteeringPack(
        emotions=emotions,
        vectors={"residual.resid_post": vectors},
        layers={"residual.resid_post": layers},
        n_layers=model.n_layers,
        d_model=model.d_model,
        recommended={"residual": dict.fromkeys(emotions, 1.0)},
        positions={"residual": "all"},
        provenance=Provenance("pack", model=model.fingerprint, model_name=model.name),
    )


def edits(made: al.SteeringPack, weights: dict[str, float]) -> dict[int, Any]:
    """The same as plain additions."""
    vectors = made.vectors["residual.resid_post"]
    return {
        layer: sum(w * vectors[made.emotions.index(e), i] for e, w in weights.items())
        for i, layer in enumerate(made.layers["residual.resid_post"])
    }


def test_steering_equals_plain_hooks(tried: Tried) -> None:
    """Two requests and an unsteered row in one batch, cached, as when each text runs alone."""
    model, reference, made = tried.model, tried.reference, pack(tried.model)
    asked = ({"anger": 1.0}, {"fear": 1.5, "anger": -0.5}, None)
    wanted = [
        reference.greedy(ids, edits(made, weights) if weights else None, NEW)
        for ids, weights in zip(tried.ids, asked, strict=True)
    ]
    options: Any = {"mode": "residual", "positions": "all", "unit": "natural"}
    specs = [weights and al.SteeringSpec(weights, **options) for weights in asked]
    if tried.name == "rwkv":  # its state is no cache of transformers
        with pytest.raises(ModelError, match="takes no cache of transformers"):
            generate_ids(model, tried.ids, SETTINGS)
        return
    with made.steer(model, specs):
        replies = generate_ids(model, tried.ids, SETTINGS)
    assert [list(reply) for reply in replies] == [until_end(row, model.eos_ids) for row in wanted]
    if not model.padding.upto(64).left:
        return
    batch, mask = model.encode_batch(tried.ids, "left")
    if tried.name in ("mamba", "mamba2"):  # its generate drops the mask, and a state has no length
        with made.steer(model, specs), pytest.raises(al.AffectLensError, match="state-space model"):
            model.hf.generate(batch, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
        return
    with made.steer(model, specs):
        out: Any = model.hf.generate(  # type: ignore[operator]
            input_ids=batch,
            attention_mask=mask,
            max_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
        )
    assert out[:, batch.shape[1] :].tolist() == wanted


def until_end(row: list[int], ends: tuple[int, ...]) -> list[int]:
    """A reply up to its end."""
    return row[: next((i for i, token in enumerate(row) if token in ends), len(row))]


def test_strength_0_changes_no_bit(tried: Tried) -> None:
    ids = torch.tensor([tried.ids[0]])
    with torch.no_grad():
        free = tried.model.hf(input_ids=ids).logits
        with pack(tried.model).steer(tried.model, "anger=0"):
            assert torch.equal(tried.model.hf(input_ids=ids).logits, free)


def test_the_table_in_the_docs_says_so(tried: Tried) -> None:
    assert row(tried.name, tried.model.hf) in PAGE.read_text(encoding="utf-8").splitlines()
