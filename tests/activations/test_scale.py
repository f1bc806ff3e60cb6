"""The size of the residual stream against one that is worked out token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from affectlens.activations import residual_rms
from affectlens.core import DataError

PROMPTS = ([5, 17, 33, 90, 12, 61], [44, 7, 150], [9], [101, 102, 103, 104, 105, 9, 8, 7])


def by_hand(model: Any, keep: Any) -> list[float]:
    """Mean over the tokens that are kept, of plain Transformers' blocks."""
    sizes: list[list[float]] = [[] for _ in range(model.n_layers)]
    for ids in PROMPTS:
        for layer, part in enumerate(model.anatomy.blocks):
            seen: list[Any] = []
            handle = part.block.register_forward_hook(
                lambda _m, _a, out, seen=seen: seen.append(
                    out[0] if isinstance(out, tuple) else out
                )
            )
            with torch.no_grad():
                model.hf(input_ids=torch.tensor([ids]))
            handle.remove()
            for t, vector in enumerate(seen[0][0].double()):
                if keep(ids, t):
                    sizes[layer].append(float((vector**2).sum() / len(vector)) ** 0.5)
    return [sum(found) / len(found) for found in sizes]


def test_the_mean_over_all_tokens_but_the_first(each_model: Any) -> None:
    found = residual_rms(each_model, PROMPTS)
    assert found.tolist() == pytest.approx(by_hand(each_model, lambda _ids, t: t > 0), rel=1e-5)


def test_tokens_that_are_sinks_are_left_out(tiny_model: Any) -> None:
    """Wherever they stand, and however large they are."""
    model = tiny_model("llama", seed=3)
    table = model.hf.get_input_embeddings().weight
    kept = table[33].clone()
    with torch.no_grad():
        table[33] *= 3000  # the third token of the first prompt
    try:
        found = residual_rms(model, PROMPTS)
        wanted = by_hand(model, lambda ids, t: t > 0 and ids[t] != 33)
        assert found.tolist() == pytest.approx(wanted, rel=1e-5)
        assert by_hand(model, lambda _ids, t: t > 0)[0] > 10 * wanted[0]
    finally:
        with torch.no_grad():
            table[33] = kept


def test_nothing_to_measure_is_said(tiny_model: Any) -> None:
    with pytest.raises(DataError, match="two tokens and more"):
        residual_rms(tiny_model("llama"), [[5], []])
