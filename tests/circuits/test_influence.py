"""Influence against one full forward pass of the plain model per push."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

from affectlens.circuits.influence import (
    InfluenceProfile,
    band,
    influence,
    reference_direction,
    target_tokens,
)
from affectlens.circuits.last_token_replay import last_token
from affectlens.core import DataError, ModelError, UnknownNameError
from affectlens.models.loading import load_model
from tests.circuits.helpers import (
    EMOTIONS,
    WORDS,
    direction,
    hooks,
    random_directions,
    sublayer_out,
)
from tests.conftest import VOCAB, make_tiny, tiny_tokenizer

PROMPTS = [[5, 17, 33, 42, 8, 99, 120, 7, 66, 150, 31, 12, 9], [44, 3, 90, 61]]
ALPHAS = (0.1, 0.7)


def full_pass(model: Any, ids: list[int], *extra: Any) -> tuple[Tensor, Tensor]:
    """Residual after the last block and logits, at the last token; no cache, no package code."""
    last: list[Tensor] = []
    look = (model.anatomy.blocks[-1].block, lambda x: last.append(x[0, -1].clone()), "out")
    with torch.no_grad(), hooks(*extra, look):
        logits = model.hf(torch.tensor([ids])).logits[0, -1]
    return last[0], logits


def brute_force(model: Any, ids: list[int], directions: Any) -> dict[str, Tensor]:
    n = model.n_layers
    seen: dict[Any, Tensor] = {}
    parts = model.anatomy.blocks
    looks = [
        (p.block, lambda x, i=p.layer: seen.__setitem__(("post", i), x[0, -1].clone()), "out")
        for p in parts
    ]
    if model.anatomy.has_resid_mid:
        looks += [
            (
                p.mid_reader,
                lambda x, i=p.layer: seen.__setitem__(("mid", i), x[0, -1].clone()),
                "in",
            )
            for p in parts
        ]
    final, logits = full_pass(model, ids, *looks)
    references = {}
    for name in ("late", "middle"):
        low, high = band(n, name)
        inside = torch.stack(
            [
                direction(directions, i, kind)
                for i in range(low, high + 1)
                for kind in ("resid_mid", "resid_post")
            ]
        )
        signs = torch.sign((inside * inside[0]).sum(-1, keepdim=True))
        mean = (inside * signs).mean(0)
        references[name] = mean / mean.norm(dim=-1, keepdim=True)
    tokens = target_tokens(model.tokenizer, EMOTIONS, WORDS)

    def logit(values: Tensor, e: int) -> Tensor:
        means = torch.stack([values[list(tokens[name])].mean() for name in EMOTIONS])
        return means[e] - (means.sum() - means[e]) / (len(EMOTIONS) - 1)

    out = {name: torch.zeros(len(EMOTIONS), n, 2) for name in ("late", "middle", "logit")}
    for part in parts:
        for p, kind in enumerate(("attn", "mlp")):
            where = "mid" if kind == "attn" and model.anatomy.has_resid_mid else "post"
            sigma = seen[where, part.layer].square().mean().sqrt()
            v = direction(directions, part.layer, f"resid_{where}")
            for e in range(len(EMOTIONS)):
                for alpha in ALPHAS:

                    def push(value: Tensor, step: Tensor = alpha * sigma * v[e]) -> Tensor:
                        value = value.clone()
                        value[:, -1] += step
                        return value

                    pushed, other = full_pass(model, ids, (sublayer_out(part, kind), push, "out"))
                    for name, ref in references.items():
                        gain = (pushed - final) @ ref[e] / (alpha * sigma)
                        out[name][e, part.layer, p] += gain / len(ALPHAS)
                    gain = (logit(other, e) - logit(logits, e)) / (alpha * sigma)
                    out["logit"][e, part.layer, p] += gain / len(ALPHAS)
    return out


@pytest.mark.parametrize("family", ["bloom", "xglm"])
def test_families_that_call_blocks_in_their_own_way(family: str) -> None:
    """Bloom has rows and heads of its ALiBi biases on one axis; XGLM passes a mask by position."""
    common: dict[str, Any] = {"vocab_size": VOCAB, "pad_token_id": 0, "eos_token_id": 2}
    if family == "bloom":
        config: Any = tf.BloomConfig(**common, hidden_size=32, n_layer=2, n_head=4)
    else:
        sizes = {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64}
        config = tf.XGLMConfig(**common, **sizes, max_position_embeddings=64)
    torch.manual_seed(0)
    hf = tf.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.3)
    test_equals_a_full_pass_per_push(load_model(hf, tokenizer=tiny_tokenizer()))


def test_an_unembedding_of_another_width_is_refused() -> None:
    model = make_tiny("opt", word_embed_proj_dim=16)
    with pytest.raises(ModelError, match="32 values to 16 before the unembedding"):
        influence(model, PROMPTS, random_directions(model), words=WORDS)


def test_equals_a_full_pass_per_push(each_model: Any) -> None:
    directions = random_directions(each_model)
    ours = influence(
        each_model, PROMPTS, directions, alphas=ALPHAS, words=WORDS, max_rows=5, used="middle"
    )
    singles = [brute_force(each_model, ids, directions) for ids in PROMPTS]
    for name in ("late", "middle", "logit"):
        both = torch.stack([single[name] for single in singles])
        scale = float(both.abs().max())
        assert scale > 0.05
        torch.testing.assert_close(ours.values[name], both.mean(0), atol=2e-3 * scale, rtol=1e-3)
        error = both.std(0) / 2**0.5
        torch.testing.assert_close(ours.error[name], error, atol=2e-3 * scale, rtol=1e-3)
    assert torch.equal(ours.chosen, ours.values["middle"])
    assert set(ours.agreement()) == {"late", "logit"}


def test_last_layer_by_hand(tiny_model: Any) -> None:
    """A push by the last MLP goes straight to the end: its influence is a cosine."""
    model = tiny_model("gpt2")
    directions = random_directions(model)
    ours = influence(model, PROMPTS, directions, words=WORDS)
    vectors = torch.stack(
        [
            torch.stack([direction(directions, i, k) for k in ("resid_mid", "resid_post")], 1)
            for i in range(model.n_layers)
        ],
        dim=1,
    )
    for name in ("late", "middle"):
        reference = reference_direction(vectors, ours.bands[name])
        cosine = (direction(directions, model.n_layers - 1, "resid_post") * reference).sum(-1)
        torch.testing.assert_close(ours.values[name][:, -1, 1], cosine, atol=1e-3, rtol=1e-3)


def test_replay_leaves_the_model_and_the_cache_alone(each_model: Any) -> None:
    before, logits = full_pass(each_model, PROMPTS[0])
    token = last_token(each_model, PROMPTS[0])
    length = token.cache.get_seq_length()
    rows = token.resid_pre[1].expand(7, -1) + 0.1 * torch.randn(7, each_model.d_model)
    with torch.no_grad():
        few = token.run_block(1, rows, max_rows=3)
        all_ = token.run_block(1, rows)
    torch.testing.assert_close(few, all_, atol=1e-5, rtol=1e-4)
    assert length == token.cache.get_seq_length() == len(PROMPTS[0]) - 1
    again, same = full_pass(each_model, PROMPTS[0])
    assert torch.equal(before, again)
    assert torch.equal(logits, same)
    torch.testing.assert_close(token.resid_post[-1], before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "gpt_neox"])
def test_half_precision_does_not_drown_small_pushes(family: str) -> None:
    """A bfloat16 model and the same weights in fp32 agree, down to pushes of 1 % of the RMS."""
    half, full = make_tiny(family), make_tiny(family)
    half.hf.to(torch.bfloat16)
    full.hf.to(torch.bfloat16).float()
    directions = random_directions(half)
    options: Any = {"alphas": (0.01,), "words": WORDS}
    ours = influence(half, PROMPTS, directions, **options)
    exact = influence(full, PROMPTS, directions, **options)
    for name in ("late", "middle", "logit"):
        scale = float(exact.values[name].abs().max())
        torch.testing.assert_close(ours.values[name], exact.values[name], atol=0.05 * scale, rtol=0)
    assert half.dtype == torch.bfloat16


def test_bands() -> None:
    assert band(28, "late") == (21, 25)  # as published
    assert band(30, "late") == (22, 26)
    assert band(28, "middle") == (11, 15)
    for n in range(1, 40):
        for name in ("late", "middle"):
            low, high = band(n, name)
            assert 0 <= low <= high < n


def test_signs_do_not_cancel_in_the_reference() -> None:
    v = torch.randn(2, 4, 2, 8)
    v = v / v.norm(dim=-1, keepdim=True)
    mixed = v[:, :1].repeat(1, 4, 1, 1)
    mixed[:, 2] *= -1
    mixed[:, :, 1] = mixed[:, :, 0]
    torch.testing.assert_close(reference_direction(mixed, (0, 3)), v[:, 0, 0])


def test_target_tokens(tiny_model: Any) -> None:
    tokenizer = tiny_model("llama").tokenizer
    tokens = target_tokens(tokenizer, EMOTIONS, WORDS)
    assert set(tokens) == set(EMOTIONS)
    everything = [i for ids in tokens.values() for i in ids]
    assert len(everything) == len(set(everything))
    for emotion, ids in tokens.items():
        starts = {
            tokenizer.encode(space + w, add_special_tokens=False)[0]
            for word in WORDS[emotion]
            for w in (word, word.capitalize())
            for space in ("", " ")
        }
        assert set(ids) <= starts
    with pytest.raises(DataError, match="No token tells fear"):
        target_tokens(tokenizer, ("anger", "fear"), {"anger": ("sad", "dark"), "fear": ("dark",)})


def test_refusals(tiny_model: Any) -> None:
    model = tiny_model("llama")
    directions = random_directions(model)
    with pytest.raises(DataError, match="at least one"):
        influence(model, [], directions, words=WORDS)
    with pytest.raises(DataError, match="two tokens"):
        influence(model, [[3]], directions, words=WORDS)
    with pytest.raises(DataError, match="positive"):
        influence(model, PROMPTS, directions, alphas=(0.0,), words=WORDS)
    with pytest.raises(UnknownNameError, match="middle"):
        influence(model, PROMPTS, directions, used="mid")


def test_round_trip(tiny_model: Any) -> None:
    model = tiny_model("llama")
    ours = influence(model, PROMPTS, random_directions(model), words=WORDS, alphas=(0.3,))
    again = InfluenceProfile.from_tensors(*ours.to_tensors())
    assert again.bands == ours.bands
    assert again.used == "late"
    assert torch.equal(again.chosen, ours.chosen)
    assert torch.equal(again.error["logit"], ours.error["logit"])
