"""Attention patterns beside fused attention, against what eager attention returns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.activations.forward.engines import open_engine
from affectlens.core.errors import DataError, ModelError
from affectlens.core.places import Site
from affectlens.models.hooking.attention_patterns import attention_weights, flat_pattern
from affectlens.models.loading import LanguageModel, load_model
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS, tiny_tokenizer

ROWS = (
    (5, 17, 33, 42, 8, 99, 120, 7, 66, 150, 31, 12),
    (60, 61, 62, 63, 64),
    (70, 71, 72, 73, 74, 75, 76, 77, 78),
)
KEYS = 15  # more than the longest of them
PATTERNS = [Site(layer, "pattern") for layer in range(N_LAYERS)]


def gemma2(attention: str, softcap: float | None = 2.0) -> LanguageModel:
    """A family with a soft cap on attention scores, and every other layer with a sliding window."""
    import transformers as tf

    torch.manual_seed(0)
    config = tf.Gemma2Config(
        vocab_size=200,
        hidden_size=32,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=2,
        head_dim=12,
        query_pre_attn_scalar=1,
        initializer_range=0.5,  # large scores, so that the cap matters
        intermediate_size=64,
        attn_logit_softcapping=softcap,
        sliding_window=4,
    )
    hf: Any = tf.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return load_model(hf, tokenizer=tiny_tokenizer())


def patterns(model: LanguageModel, side: str, rows: Any = ROWS) -> list[list[Tensor]]:
    """Per layer and text ``[query, head, key]``, read in one padded batch."""
    ids, mask = model.encode_batch(rows, side)
    seen: dict[Site, Tensor] = {}
    engine = open_engine("transformers", model, key_length=KEYS)
    engine.forward(ids, mask, PATTERNS, lambda site, value: seen.update({site: value}))
    lists: list[list[Tensor]] = []
    for site in PATTERNS:
        assert seen[site].shape == (*ids.shape, engine.width(site))
        value = seen[site].unflatten(2, (N_HEADS, KEYS))
        lists.append([value[i][mask[i].bool()] for i in range(len(rows))])
    return lists


def eager(model: LanguageModel, rows: Any = ROWS) -> list[list[Tensor]]:
    """The same from Transformers, one text at a time."""
    before = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            outs = [model.hf(torch.tensor([row]), output_attentions=True) for row in rows]
    finally:
        model.hf.set_attn_implementation(before)
    return [[out.attentions[layer][0].transpose(0, 1) for out in outs] for layer in range(N_LAYERS)]


def assert_equal_patterns(
    seen: list[list[Tensor]], wanted: list[list[Tensor]], slack: float = 1.0
) -> None:
    for layer in range(N_LAYERS):
        for value, weights in zip(seen[layer], wanted[layer], strict=True):
            n = weights.shape[-1]
            torch.testing.assert_close(
                value[..., :n], weights, atol=slack * 5e-6, rtol=slack * 1e-5
            )
            assert not value[..., n:].any()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_patterns_are_those_of_eager_attention(
    family: str, side: str, implementation: str, tiny_model: Any
) -> None:
    model = tiny_model(family)
    wanted = eager(model)
    model.hf.set_attn_implementation(implementation)
    try:
        assert_equal_patterns(patterns(model, side), wanted)
    finally:
        model.hf.set_attn_implementation("sdpa")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["mistral", "phi3"])
def test_patterns_end_at_a_sliding_window(family: str, side: str, tiny_model: Any) -> None:
    model = tiny_model(family, sliding_window=4)
    wanted = eager(model)
    assert not wanted[0][0][-1, :, :-4].any()
    assert wanted[0][0][-1, :, -4:].all()
    assert_equal_patterns(patterns(model, side), wanted)


@pytest.mark.parametrize("side", ["left", "right"])
def test_patterns_are_what_the_attention_did_with_its_soft_cap(side: str) -> None:
    capped = gemma2("eager")
    wanted = eager(capped)
    # Large scores magnify the rounding of float32, which differs from processor to processor.
    assert_equal_patterns(patterns(capped, side), wanted, slack=20)
    # Transformers' sdpa runs without the cap, and the pattern says so.
    free = eager(gemma2("eager", softcap=None))
    assert (free[0][0] - wanted[0][0]).abs().max() > 0.05
    loose = gemma2("eager")
    try:
        loose.hf.set_attn_implementation("sdpa")  # behind our back: loading would keep the cap
    except ValueError as error:  # Transformers 5.23 refuses it
        assert "does not support" in str(error)
        return
    assert_equal_patterns(patterns(loose, side), free, slack=20)


def test_texts_without_padding_use_no_mask(tiny_model: Any) -> None:
    model = tiny_model("llama")
    assert_equal_patterns(patterns(model, "right", ROWS[:1]), eager(model, ROWS[:1]))


def test_patterns_need_to_know_the_longest_text(tiny_model: Any) -> None:
    model = tiny_model("llama")
    ids, mask = model.encode_batch(ROWS)
    with pytest.raises(DataError, match="key_length"):
        open_engine("transformers", model).forward(ids, mask, PATTERNS, lambda *_: None)
    with pytest.raises(DataError, match=r"12 tokens does not fit .* 11 keys"):
        open_engine("transformers", model, key_length=11).forward(
            ids, mask, PATTERNS, lambda *_: None
        )


def test_flat_patterns_start_at_the_first_real_token() -> None:
    weights = torch.arange(1, 17.0).reshape(1, 1, 4, 4).tril()
    right = flat_pattern(weights, torch.tensor([[1, 1, 1, 1]]), 6)
    assert right[0, 3].tolist() == [13, 14, 15, 16, 0, 0]
    left = flat_pattern(weights, torch.tensor([[0, 0, 1, 1]]), 3)
    assert left[0, 3].tolist() == [15, 16, 0]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("window", [None, 3])
def test_masks_of_flash_attention_mean_the_same(masked: bool, window: int | None) -> None:
    """It gets a mask per key and the window, where sdpa gets one mask with everything in it."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, n, 6, 8, generator=generator) for n in (4, 2))
    keys = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6]) if masked else None
    distance = torch.arange(6)[:, None] - torch.arange(6)
    full = (distance >= 0) & (distance < (window or 6))
    full = full.expand(2, 1, 6, 6) & (True if keys is None else keys[:, None, None].bool())
    module = torch.nn.Module()
    wanted = attention_weights(module, "sdpa", query, key, full, scaling=0.3)
    seen = attention_weights(
        module, "flash_attention_2", query, key, keys, scaling=0.3, sliding_window=window
    )
    torch.testing.assert_close(seen, wanted)
    capped = attention_weights(
        module, "flash_attention_2", query, key, full, scaling=0.3, softcap=0.5
    )
    assert (capped - wanted).abs().max() > 0.01
    scores = query @ key.repeat_interleave(2, dim=1).transpose(-1, -2) * 0.3
    scores = (0.5 * torch.tanh(scores / 0.5)).masked_fill(~full, -torch.inf)
    torch.testing.assert_close(capped, scores.softmax(-1))


@pytest.mark.parametrize(
    ("mask", "others"), [("BlockMask", {}), (None, {"s_aux": 1}), (None, {"position_bias": 1})]
)
def test_attention_that_is_not_understood_is_refused(mask: Any, others: dict[str, Any]) -> None:
    query = torch.ones(1, 2, 3, 4)
    with pytest.raises(ModelError, match="eager"):
        attention_weights(torch.nn.Module(), "flex_attention", query, query, mask, **others)
