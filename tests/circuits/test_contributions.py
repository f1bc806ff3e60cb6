"""Contributions against forward passes of the plain Hugging Face model, one record at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.circuits import contributions, score_units, unit_means
from affectlens.circuits.attribution.postnorm import norm_gain
from affectlens.circuits.attribution.sublayer_directions import sublayer_directions
from affectlens.circuits.attribution.unit_means import cell_weights, difference, store_means
from affectlens.core import DataError, ModelError, UnknownNameError
from tests.circuits.helpers import (
    EMOTIONS,
    direction,
    random_directions,
    record_of,
    run,
    small_corpus,
    true_norm,
)


@pytest.mark.parametrize("design", ["replies", "elicited"])
def test_each_unit_equals_the_definition(each_model: Any, design: str) -> None:
    corpus, directions = small_corpus(design), random_directions(each_model)
    found = contributions(each_model, corpus, directions, max_tokens_per_batch=150)
    anatomy = each_model.anatomy
    assert found.attn_site == ("resid_mid" if anatomy.has_resid_mid else "resid_post")
    for e, emotion in enumerate(EMOTIONS):
        records = record_of(corpus, emotion)
        neurons = torch.zeros(anatomy.n_layers, anatomy.d_mlp)
        heads = torch.zeros(anatomy.n_layers, anatomy.n_heads)
        totals = torch.zeros(anatomy.n_layers, 2)
        for record in records:
            seen, span = run(each_model, record)
            for part in anatomy.blocks:
                i = part.layer
                for p, (kind, norm) in enumerate(
                    (("attn", part.attn_post_norm), ("mlp", part.mlp_post_norm))
                ):
                    v = direction(directions, i, ("resid_mid", "resid_post")[p])[e]
                    x, y = seen[f"{kind}_in", i][span], seen[f"{kind}_raw", i][span]
                    if norm is not None:
                        weight, scale = true_norm(norm, y)
                        v_in, x = v * weight, x * scale
                    else:
                        v_in = v
                    totals[i, p] += (seen[f"{kind}_out", i][span] @ v).mean()
                    if p:
                        neurons[i] += (x * (part.W_down() @ v_in)).mean(0)
                    else:
                        written = torch.einsum(
                            "thk,hkd->thd", x.unflatten(-1, (anatomy.n_heads, -1)), part.W_O()
                        )
                        heads[i] += (written @ v_in).mean(0)
        n = len(records)
        torch.testing.assert_close(found.neurons[e], neurons / n, atol=2e-5, rtol=1e-3)
        torch.testing.assert_close(found.heads[e], heads / n, atol=2e-5, rtol=1e-3)
        torch.testing.assert_close(found.totals[e], totals / n, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("score", ["mean", "contrast"])
def test_units_and_bias_sum_to_the_sublayer(each_model: Any, score: str) -> None:
    corpus, directions = small_corpus(), random_directions(each_model, mid=False)
    found = contributions(each_model, corpus, directions, score=score)
    sums = torch.stack([found.heads.sum(-1), found.neurons.sum(-1)], -1) + found.bias
    torch.testing.assert_close(sums, found.totals, atol=1e-5, rtol=1e-4)
    assert found.residue() < 1e-4
    assert float(found.totals.abs().max()) > 0.01
    if score == "contrast":
        # A contrast against the mean of all emotions: with one direction for all, it sums to zero.
        shared = found.means.out[:, :, :, :, :] @ directions.vectors[0, 0]
        centred = shared - shared.mean(0)
        assert float(centred.sum(0).abs().max()) < 1e-4


def test_valences_average_to_the_whole(tiny_model: Any) -> None:
    model = tiny_model("llama")
    found = contributions(model, small_corpus(), random_directions(model))
    assert set(found.neurons_by_valence) == {"positive", "negative"}
    mean = torch.stack(list(found.neurons_by_valence.values())).mean(0)
    torch.testing.assert_close(mean, found.neurons, atol=1e-6, rtol=1e-4)
    mean = torch.stack(list(found.heads_by_valence.values())).mean(0)
    torch.testing.assert_close(mean, found.heads, atol=1e-6, rtol=1e-4)
    assert not torch.allclose(found.heads_by_valence["positive"], found.heads)


@pytest.mark.parametrize("kind", ["attn", "mlp"])
def test_equals_zero_ablation(each_model: Any, kind: str) -> None:
    """Zero a unit at all positions at the input of its projection; read the same layer's residual.

    With a norm after the sublayer its scale is held at the value it had, as documented.
    """
    corpus, directions = small_corpus("elicited"), random_directions(each_model)
    found = contributions(each_model, corpus, directions)
    scores = found.heads if kind == "attn" else found.neurons
    anatomy = each_model.anatomy
    part = anatomy.blocks[1]
    norm = part.attn_post_norm if kind == "attn" else part.mlp_post_norm
    # In a parallel block nothing else reads the attention's output before the block ends.
    mid = kind == "attn" and anatomy.has_resid_mid
    v = direction(directions, 1, "resid_mid" if mid else "resid_post")
    width = anatomy.d_head if kind == "attn" else 1
    for unit in (0, 3):

        def zero(value: Tensor, unit: int = unit) -> Tensor:
            value = value.clone()
            value[..., unit * width : (unit + 1) * width] = 0
            return value

        for e, emotion in enumerate(EMOTIONS):
            drops: list[Tensor] = []
            for record in record_of(corpus, emotion):
                residuals: list[Tensor] = []
                reader = part.mid_reader if mid else part.block
                look = (
                    reader,
                    lambda x, out=residuals: out.append(x[0, -1].clone()),
                    "in" if mid else "out",
                )
                seen, _ = run(each_model, record, look)
                extra = [(part.o_proj if kind == "attn" else part.down_proj, zero, "in"), look]
                if norm is not None:
                    weight, scale = true_norm(norm, seen[f"{kind}_raw", 1])
                    projection = part.o_proj if kind == "attn" else part.down_proj
                    raw: list[Tensor] = []
                    extra.append((projection, lambda y, raw=raw: raw.append(y[0]), "out"))
                    extra.append(
                        (norm, lambda _, w=weight, s=scale, raw=raw: (raw[0] * s * w)[None], "out")
                    )
                run(each_model, record, *extra)
                drops.append((residuals[0] - residuals[1]) @ v[e])
            expected = torch.stack(drops).mean()
            torch.testing.assert_close(scores[e, 1, unit], expected, atol=3e-5, rtol=1e-3)


def test_zero_ablation_hits_something(tiny_model: Any) -> None:
    """Guards the test above: scores are not all nearly zero, and heads differ."""
    model = tiny_model("llama")
    found = contributions(model, small_corpus("elicited"), random_directions(model))
    assert float(found.heads[:, 1].abs().min()) > 1e-3
    assert float(found.heads[:, 1].std()) > 1e-2


def test_differences_keep_valences_apart(tiny_model: Any) -> None:
    """Both valences share the group name; merging them would average over the wrong cells."""
    model, corpus = tiny_model("qwen3"), small_corpus()
    means = unit_means(model, corpus, EMOTIONS)
    assert means.n_groups == 4
    rows = {r.id: run(model, r) for r in corpus}
    for name, kind in (("neurons", "mlp_in"), ("heads", "attn_in")):
        cells: dict[tuple[str, str], list[Tensor]] = {}
        for record in corpus:
            if record.emotion in EMOTIONS:
                seen, span = rows[record.id]
                cells.setdefault((record.group, str(record.valence)), []).append(
                    seen[kind, 2][span].mean(0)
                )
        assert len(cells) == 4
        per_group = torch.stack([torch.stack(x) - torch.stack(x).mean(0) for x in cells.values()])
        ours = difference(means.mean(name))[:, 2]
        torch.testing.assert_close(ours, per_group.mean(0), atol=1e-5, rtol=1e-3)


def test_incomplete_groups_are_left_out() -> None:
    labels = [("anger", "s0", "positive"), ("fear", "s0", "positive"), ("anger", "s0", "negative")]
    emotion, group, valence = zip(*labels, strict=True)
    weights, n = cell_weights(emotion, group, valence, ("anger", "fear"))
    assert (weights.tolist(), n) == ([1, 1, 0], 1)
    # Without the valence in the key, the third row would have shared the first one's weight.
    weights, n = cell_weights(emotion, group, ["x"] * 3, ("anger", "fear"))
    assert (weights.tolist(), n) == ([0.5, 1, 0.5], 1)
    weights, n = cell_weights(emotion, group, valence, ("anger", "fear"), grouped=False)
    assert (weights.tolist(), n) == ([1, 1, 1], 0)
    with pytest.raises(DataError, match="No group"):
        cell_weights(emotion[1:], group[1:], valence[1:], ("anger", "fear"), grouped=True)
    with pytest.raises(DataError, match="disgust"):
        cell_weights(emotion, group, valence, ("anger", "disgust"))


def test_store_gives_the_same_differences(tiny_model: Any) -> None:
    from affectlens.activations import capture

    model, corpus = tiny_model("mistral"), small_corpus()
    means = unit_means(model, corpus, EMOTIONS)
    store = capture(model, corpus, sites=["mlp_post", "z"])
    neurons, heads = store_means(store, EMOTIONS, model.anatomy)
    torch.testing.assert_close(neurons, means.mean("neurons"), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(heads, means.mean("heads"), atol=1e-5, rtol=1e-4)


def test_batching_changes_nothing(tiny_model: Any) -> None:
    model, corpus = tiny_model("gemma3"), small_corpus()
    one = unit_means(model, corpus, EMOTIONS, max_tokens_per_batch=1)
    all_ = unit_means(model, corpus, EMOTIONS, max_tokens_per_batch=10**5)
    for name in ("neurons", "heads", "scaled_neurons", "scaled_heads", "scale", "out"):
        torch.testing.assert_close(getattr(one, name), getattr(all_, name), atol=1e-5, rtol=1e-4)


def test_gain_of_real_norms_and_refusal_of_layer_norm(tiny_model: Any) -> None:
    for family in ("gemma3", "olmo2"):
        part = tiny_model(family).anatomy.blocks[0]
        y = torch.randn(1, 5, tiny_model(family).d_model)
        weight, scale = true_norm(part.mlp_post_norm, y)
        gain = norm_gain(part.mlp_post_norm, y)
        assert gain is not None
        torch.testing.assert_close(gain, weight)
        torch.testing.assert_close(part.mlp_post_norm(y), y * scale * gain)
    layer_norm = torch.nn.LayerNorm(32)
    torch.nn.init.normal_(layer_norm.bias)
    with pytest.raises(ModelError, match="LayerNorm"):
        norm_gain(layer_norm, torch.zeros(32))
    assert norm_gain(None, torch.zeros(32)) is None


def test_refusals(tiny_model: Any) -> None:
    model = tiny_model("llama")
    directions, corpus = random_directions(model), small_corpus()
    with pytest.raises(UnknownNameError, match="contrast"):
        contributions(model, corpus, directions, score="contrst")
    with pytest.raises(UnknownNameError, match="all"):
        contributions(model, corpus, directions, position="all")
    with pytest.raises(DataError, match="no records for disgust"):
        unit_means(model, corpus, ("anger", "disgust"))
    short = replace(directions, sites=directions.sites[:-1], vectors=directions.vectors[:-1])
    with pytest.raises(DataError, match="resid_post at layer 2"):
        sublayer_directions(short, model.anatomy)
    wide = random_directions(tiny_model("llama", hidden_size=64))
    with pytest.raises(DataError, match="width 64"):
        sublayer_directions(wide, model.anatomy)
    means = unit_means(model, corpus, ("fear", "anger", "happiness"))
    with pytest.raises(DataError, match="same emotions"):
        score_units(model, means, sublayer_directions(directions, model.anatomy))
