"""Means of units against plain passes over one text at a time, added up in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.circuits import unit_means
from affectlens.core import DataError, UnknownNameError
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.models.generation.listeners import listening
from tests.circuits.helpers import EMOTIONS, run, small_corpus, true_norm
from tests.conftest import make_tiny

TENSORS = ("neurons", "heads", "scaled_neurons", "scaled_heads", "scale", "out")


def brute_force(model: Any, corpus: Corpus, emotion: str, valence: str) -> dict[str, Tensor]:
    """Means of one emotion and valence, all records alike, in float64."""
    cell = [r for r in corpus if r.emotion == emotion and (r.valence or "") == valence]
    sums: dict[str, list[Tensor]] = {name: [] for name in TENSORS}
    for record in cell:
        seen, span = run(model, record)
        layers: dict[str, list[Tensor]] = {name: [] for name in TENSORS}
        for part in model.anatomy.blocks:
            scales, outs = [], []
            norms = {"attn": part.attn_post_norm, "mlp": part.mlp_post_norm}
            for (kind, norm), name in zip(norms.items(), ("heads", "neurons"), strict=True):
                x = seen[f"{kind}_in", part.layer][span].double()
                y = seen[f"{kind}_raw", part.layer][span].double()
                scale = torch.ones(len(x), 1) if norm is None else true_norm(norm, y)[1]
                layers[name].append(x.mean(0))
                layers[f"scaled_{name}"].append((x * scale).mean(0))
                scales.append(scale.mean())
                outs.append(seen[f"{kind}_out", part.layer][span].double().mean(0))
            layers["scale"].append(torch.stack(scales))
            layers["out"].append(torch.stack(outs))
        for name, rows in layers.items():
            sums[name].append(torch.stack(rows))
    return {name: torch.stack(rows).mean(0) for name, rows in sums.items()}


@pytest.mark.parametrize("family", ["llama", "gemma3", "olmo2", "opt"])
def test_means_equal_one_text_at_a_time_in_float64(tiny_model: Any, family: str) -> None:
    """Off by the rounding of one pass in float32 alone."""
    model, corpus = tiny_model(family), small_corpus()
    found = unit_means(model, corpus, EMOTIONS, max_tokens_per_batch=150)
    for e, emotion in enumerate(EMOTIONS):
        for v, valence in enumerate(found.valences):
            expected = brute_force(model, corpus, emotion, valence)
            for name in TENSORS:
                value, wanted = getattr(found, name)[e, v].double(), expected[name].double()
                error = float((value - wanted).abs().max() / wanted.abs().max())
                assert error < 5e-6, (name, error)
    assert bool((found.scale != 1).all()) == (family in ("gemma3", "olmo2"))


def test_one_text_among_many_of_other_lengths_is_read_alike(tiny_model: Any) -> None:
    """Weights go with their records, whatever the order in which texts run."""
    model, corpus = tiny_model("llama"), small_corpus()
    shuffled = replace(corpus, records=corpus.records[::-1])
    one, two = (unit_means(model, each, EMOTIONS) for each in (corpus, shuffled))
    order = [two.valences.index(v) for v in one.valences]
    for name in TENSORS:
        torch.testing.assert_close(
            getattr(one, name), getattr(two, name)[:, order], atol=1e-6, rtol=1e-5
        )


def test_what_is_not_a_number_is_refused_by_record(tiny_model: Any) -> None:
    model = make_tiny("llama")
    with torch.no_grad():
        model.hf.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match=r"blocks\.1\.hook_mlp_out of record .* holds NaN"):
        unit_means(model, small_corpus(), EMOTIONS)


def test_refusals(tiny_model: Any) -> None:
    model = tiny_model("llama")
    long = Record("long", (Message("text", "so angry " * 200),), "anger", None, "g", "", "fit")
    texts = Corpus("said", "texts", (long,))
    with pytest.raises(DataError, match=r"Record long has .* tokens, .*; shorten it"):
        unit_means(model, texts, ("anger",))
    with pytest.raises(UnknownNameError, match="last"):
        unit_means(model, small_corpus(), EMOTIONS, position="all:reply")
    with listening(model.hf, Nobody()), pytest.raises(DataError, match="outside the steering"):
        unit_means(model, small_corpus(), EMOTIONS)


class Nobody:
    """Listens to generation, as a steering block does, and does nothing."""

    def untouched(self, row: int, length: int) -> int:
        return length

    def announce(self, rows: Any, lengths: Any) -> None:
        return None

    def identity(self, rows: int) -> dict[str, Any]:
        return {}
