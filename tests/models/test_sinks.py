"""Attention sinks: found where they were planted, and in the default model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from affectlens.core.errors import DataError
from affectlens.models.loading import load_model
from affectlens.models.sinks import RATIO, Sinks, find_sinks, sinks_of
from tests.conftest import FAMILIES, tiny_hf, tiny_tokenizer


def planted(family: str, *words: str) -> Any:
    """A tiny model in which the tokens of these words have a residual a thousand times longer."""
    hf, tokenizer = tiny_hf(family), tiny_tokenizer()
    with torch.no_grad():
        for word in words:
            (token,) = tokenizer(word, add_special_tokens=False)["input_ids"]
            hf.get_input_embeddings().weight[token] *= 1000
    return load_model(hf, tokenizer=tokenizer)


@pytest.mark.parametrize("family", FAMILIES)
def test_long_tokens_are_found_and_no_others(family: str, tiny_model: Any) -> None:
    assert find_sinks(tiny_model(family)) == Sinks()
    words = (".", "<|im_end|>")
    model = planted(family, *words)
    ids = sorted(model.tokenizer.convert_tokens_to_ids(word) for word in words)
    assert model.sinks == Sinks(always=tuple(ids))
    assert model.sinks.describe(model.tokenizer) == (
        "the first token of a row, '<|im_end|>' everywhere, '.' everywhere"
    )


def test_a_token_that_is_long_only_where_it_first_stands() -> None:
    rows = [[9, 5, 1, 5, 2, 5], [9, 1, 7, 2, 7, 3], [9, 1, 2, 3, 5, 5]]
    norms = [torch.ones(3, 6) for _ in rows]
    for row, place in ((0, 1), (2, 4), (1, 2), (1, 4)):  # 5 where it is first, 7 twice
        norms[row][:, place] = 30.0
    norms[0][:, 0] = 500.0  # the first of a row tells nothing of its id
    norms[1][0, 3] = 40.0  # long at one layer of three
    norms[1][:, 5] = 0.9 * RATIO
    assert sinks_of(rows, norms) == Sinks(always=(7,), once=(5,))


def test_mask() -> None:
    sinks = Sinks(always=(7,), once=(5, 6))
    assert np.flatnonzero(sinks.mask([5, 7, 5, 6, 7, 6, 5])).tolist() == [0, 1, 3, 4]
    assert sinks.mask([]).tolist() == [] and Sinks().mask([3, 3]).tolist() == [True, False]


def test_a_tokenizer_of_another_model_is_a_sentence(tiny_model: Any) -> None:
    hf = tiny_hf("llama", vocab_size=50)
    model = load_model(hf, tokenizer=tiny_tokenizer())
    with pytest.raises(DataError, match="the tokenizer belongs to another model"):
        _ = model.sinks
