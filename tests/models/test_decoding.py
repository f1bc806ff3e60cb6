"""Choosing tokens against Transformers' logits processors; batches against brute force."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.core import DataError
from affectlens.models.generation.decoding import (
    GenerationSettings,
    NgramBan,
    likeliest,
    penalise_repetition,
    sample,
)
from affectlens.models.generation.prompt_batches import plan


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("penalty", [1.0, 1.1, 0.7])
def test_repetition_penalty(penalty: float) -> None:
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    logits, seen = some(3, 50), torch.tensor([[1, 2, 2, 49], [7, 7, 7, 7], [0, 1, 2, 3]])
    wanted = RepetitionPenaltyLogitsProcessor(penalty)(seen, logits.clone())
    penalise_repetition(logits, seen, penalty)
    assert torch.equal(logits, wanted)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 4))
def test_ngram_ban(text: list[int], size: int) -> None:
    from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor

    ban = NgramBan([text[:1]], size)
    for end in range(1, len(text) + 1):
        ids = torch.tensor([text[:end]])
        wanted = NoRepeatNGramLogitsProcessor(size)(ids, torch.zeros(1, 4))
        assert set(ban.banned(0)) == {i for i in range(4) if wanted[0, i] < 0}
        assert set(NgramBan([text[:end]], size).banned(0)) == set(ban.banned(0))
        if end < len(text):
            ban.append(0, text[end])


@pytest.mark.parametrize("vocab", [10, 1024, 1025, 5000, 49152])
def test_likeliest_is_argmax(vocab: int) -> None:
    logits = some(16, vocab)
    assert torch.equal(likeliest(logits), logits.argmax(-1))
    for place in (0, vocab - 1, vocab // 2):
        logits[place % 16, place] = 50
    assert torch.equal(likeliest(logits), logits.argmax(-1))
    ties = (logits * 2).round()
    first = [int((row == row.max()).nonzero()[0]) for row in ties]
    assert likeliest(ties).tolist() == first


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 1e-9])
def test_sampling_inverts_the_distribution(top_p: float) -> None:
    """A fine grid of uniform numbers hits every token as often as it is likely."""
    from transformers.generation.logits_process import TopPLogitsWarper

    logits, temperature = some(1, 12) * 2, 0.7
    scaled = logits / temperature
    if top_p < 1:
        scaled = TopPLogitsWarper(top_p)(torch.zeros(1, 1, dtype=torch.long), scaled)
    wanted = scaled.softmax(-1)[0]
    grid = (torch.arange(100_000) + 0.5) / 100_000
    drawn = sample(logits.expand(len(grid), -1), grid, temperature, top_p)
    got = torch.bincount(drawn, minlength=12) / len(grid)
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
    edge = sample(logits.expand(2, -1), torch.tensor([0.0, 1 - 2**-24]), temperature, top_p)
    assert bool((wanted[edge] > 0).all())


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), max_size=9),
    st.integers(1, 60),
    st.integers(0, 15),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_levels_rebuild_every_prompt(
    prompts: list[list[int]], budget: int, kept: int, share: bool, beginnings: bool, long: bool
) -> None:
    """Following the levels gives each row its prompt, and shares nothing that is touched."""
    if long:
        prompts = [[9] * 10 + ids for ids in prompts]
    batches = plan(
        prompts,
        new_tokens=3,
        max_tokens=budget,
        untouched=lambda row, n: max(0, n - kept * (row % 2)),
        share=share,
        share_beginnings=beginnings,
    )
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(prompts)))
    for batch in batches:
        longest = max(len(prompts[row]) for row in batch.rows) + 3
        assert len(batch.rows) == 1 or len(batch.rows) * longest <= budget
        texts: list[tuple[int, ...]] = [()]
        for i, level in enumerate(batch.levels):
            assert i == 0 or any(level.parents) or len(level.rows) >= len(texts)
            if i == 0:
                texts = [() for _ in level.rows]
            texts = [
                texts[parent] + tokens
                for parent, tokens in zip(level.parents, level.tokens, strict=True)
            ]
            assert all(level.tokens) or not any(level.tokens)
            for row, text in zip(level.rows, texts, strict=True):
                assert tuple(prompts[row][: len(text)]) == text
            if level.rows != batch.rows:
                for row, text in zip(level.rows, texts, strict=True):
                    assert share and len(text) <= max(0, len(prompts[row]) - kept * (row % 2))
        assert texts == [tuple(prompts[row]) for row in batch.rows]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens.*0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens.*2.5"),
        ({"max_new_tokens": True}, "max_new_tokens.*True"),
        ({"min_new_tokens": 41}, "min_new_tokens.*41.*40"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram.*-1"),
        ({"repetition_penalty": 0}, "repetition_penalty.*0"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty.*nan"),
        ({"temperature": -0.5}, "temperature.*-0.5"),
        ({"temperature": float("inf")}, "temperature.*inf"),
        ({"top_p": 0.0}, "top_p.*0.0"),
        ({"top_p": 1.5}, "top_p.*1.5"),
    ],
)
def test_settings_are_checked(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        GenerationSettings(**change)


def test_growing_layer_is_a_dynamic_layer() -> None:
    from transformers.cache_utils import DynamicLayer

    from affectlens.models.generation.kv_cache import GrowingLayer

    for capacity in (1, 6, 100):
        ours, theirs = GrowingLayer(capacity), DynamicLayer()
        for step, columns in enumerate((4, 1, 1, 3)):
            keys, values = some(2, 3, columns, 8, seed=step), some(2, 3, columns, 5, seed=step + 9)
            for got, wanted in zip(
                ours.update(keys, values), theirs.update(keys, values), strict=True
            ):
                assert torch.equal(got, wanted)
            assert ours.get_seq_length() == theirs.get_seq_length()
            assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)
        index = torch.tensor([1, 1, 0])
        ours.batch_select_indices(index)
        theirs.batch_select_indices(index)
        more = some(3, 3, 1, 8), some(3, 3, 1, 5)
        for got, wanted in zip(ours.update(*more), theirs.update(*more), strict=True):
            assert torch.equal(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [None, "boolean", "additive"])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_grouped_attention_is_attention(
    kv_heads: int, masked: str | None, dtype: torch.dtype
) -> None:
    from affectlens.models.generation.attention import grouped_attention

    query, key = some(3, 6, 1, 8).to(dtype), some(3, kv_heads, 5, 8).to(dtype)
    value = some(3, kv_heads, 5, 8, seed=1).to(dtype)
    real = torch.ones(3, 1, 1, 5, dtype=torch.bool)
    if masked:
        real[0, ..., :2] = real[2, ..., 4:] = False
    mask = {
        None: None,
        "boolean": real,
        "additive": torch.zeros(real.shape, dtype=dtype).masked_fill(~real, -torch.inf),
    }[masked]
    module = torch.nn.Module()
    module.num_key_value_groups = 6 // kv_heads  # type: ignore[assignment]
    got, _ = grouped_attention(module, query, key, value, mask, scaling=0.3, is_causal=True)
    assert got.dtype == dtype
    allowed = 1e-5 if dtype == torch.float32 else 2e-2
    for b in range(3):
        for h in range(6):
            scores = 0.3 * key[b, h * kv_heads // 6].double() @ query[b, h, 0].double()
            weights = scores.masked_fill(~real[b, 0, 0], -torch.inf).softmax(-1)
            wanted = weights @ value[b, h * kv_heads // 6].double()
            torch.testing.assert_close(got[b, 0, h].double(), wanted, atol=allowed, rtol=0)
