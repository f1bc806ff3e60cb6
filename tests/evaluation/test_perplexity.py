"""`reply_nll` against plain Transformers, one reply at a time and without any cache."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.core import DataError
from affectlens.evaluation.perplexity import reply_nll


def plain(model: Any, prompt: list[int], reply: list[int]) -> float:
    """Mean nats per token by ``hf`` alone."""
    if not reply:
        return float("nan")
    with torch.no_grad():
        logits = model.hf(torch.tensor([[*prompt, *reply]])).logits[0].float().log_softmax(-1)
    told = [float(logits[len(prompt) - 1 + t, token]) for t, token in enumerate(reply)]
    return -sum(told) / len(told)


def rows(seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts that occur once, three times and in all lengths from one; an empty reply."""
    rng = random.Random(seed)
    long, short, single = ([rng.randrange(3, 200) for _ in range(n)] for n in (21, 2, 1))
    prompts = [long, short, long, single, long, [7] * 12, short, single, long]
    replies = [[rng.randrange(3, 200) for _ in range(n)] for n in (5, 9, 1, 4, 17, 8, 3, 2, 0)]
    return prompts, replies


def test_against_plain_transformers(each_model: Any) -> None:
    prompts, replies = rows()
    done: list[int] = []
    found = reply_nll(each_model, prompts, replies, advance=done.append)
    expected = [plain(each_model, p, r) for p, r in zip(prompts, replies, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    assert np.isnan(found[-1]) and sum(done) == len(prompts) - 1


def test_batches_change_nothing(tiny_model: Any) -> None:
    model = tiny_model("llama")
    prompts, replies = rows(1)
    whole = reply_nll(model, prompts, replies)
    for budget in (1, 40, 90):
        cut = reply_nll(model, prompts, replies, max_tokens_per_batch=budget)
        np.testing.assert_allclose(cut, whole, rtol=2e-4, atol=2e-4)
    order = random.Random(2).sample(range(len(prompts)), len(prompts))
    again = reply_nll(model, [prompts[i] for i in order], [replies[i] for i in order])
    np.testing.assert_allclose(again, whole[order], rtol=2e-4, atol=2e-4)


def test_a_prompt_with_several_replies_is_run_once(tiny_model: Any) -> None:
    model = tiny_model("llama")
    prompt, replies = [5] * 30, [[i, i + 1] for i in range(10, 18)]
    tokens = 0

    def count(_module: Any, _args: Any, kwargs: Any) -> None:
        nonlocal tokens
        tokens += kwargs["input_ids"].numel()

    handle = model.anatomy.base.register_forward_pre_hook(count, with_kwargs=True)
    try:
        reply_nll(model, [prompt] * 8, replies)
    finally:
        handle.remove()
    assert tokens == 29 + 8 * 3


def test_unequal_numbers_are_refused(tiny_model: Any) -> None:
    with pytest.raises(DataError, match="2 prompts but 1 replies"):
        reply_nll(tiny_model("llama"), [[1], [2]], [[3]])
