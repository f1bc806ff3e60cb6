"""Published formulas of arXiv 2510.11328 against one plain forward pass per head or push."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.circuits.attribution.after_norm import heads_after_norm
from affectlens.circuits.influence import band
from affectlens.circuits.published_influence import InfluenceReading, published_influence
from affectlens.core import DataError, ModelError
from tests.circuits.helpers import (
    EMOTIONS,
    direction,
    hooks,
    random_directions,
    record_of,
    run,
    small_corpus,
    sublayer_out,
)

PROMPTS = [[44, 3, 90, 61, 7]]


def mlp_input(model: Any, record: Any, *extra: Any) -> list[Tensor]:
    """What every MLP is given at the last token."""
    found: list[Tensor] = []
    looks = [(p.mlp, lambda x: found.append(x[0, -1].clone()), "in") for p in model.anatomy.blocks]
    run(model, record, *looks, *extra)
    return found


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "olmo2"])
def test_head_scores_are_those_of_a_pass_per_head(tiny_model: Any, family: str) -> None:
    model, corpus = tiny_model(family), small_corpus("elicited")
    directions = random_directions(model)
    found = heads_after_norm(model, corpus, directions)
    for e, emotion in enumerate(EMOTIONS[:1]):
        records = record_of(corpus, emotion)
        whole = [mlp_input(model, record) for record in records]
        for part in model.anatomy.blocks:
            v = direction(directions, part.layer, "resid_mid")[e]
            for head in range(part.n_heads):

                def silence(value: Tensor, h: int = head, d: int = part.d_head) -> Tensor:
                    value = value.clone()
                    value[..., h * d : (h + 1) * d] = 0
                    return value

                falls = [
                    (
                        was[part.layer]
                        - mlp_input(model, r, (part.o_proj, silence, "in"))[part.layer]
                    )
                    @ v
                    for r, was in zip(records, whole, strict=True)
                ]
                expected = torch.stack(falls).mean()
                torch.testing.assert_close(
                    found[e, part.layer, head], expected, rtol=1e-3, atol=1e-4
                )


def test_head_scores_need_a_residual_between_the_sublayers(tiny_model: Any) -> None:
    model = tiny_model("gpt_neox")
    with pytest.raises(ModelError, match="between attention and MLP"):
        heads_after_norm(model, small_corpus("elicited"), random_directions(model))
    model = tiny_model("llama")
    with pytest.raises(DataError, match="resid_mid"):
        heads_after_norm(model, small_corpus("elicited"), random_directions(model, mid=False))


@pytest.mark.parametrize(("normed", "aligned"), [(True, True), (False, False)])
def test_influence_is_that_of_a_pass_per_push(tiny_model: Any, normed: bool, aligned: bool) -> None:
    model = tiny_model("llama")
    directions = random_directions(model)
    n = model.n_layers
    sigma = torch.rand(n, 2, generator=torch.Generator().manual_seed(1)) + 0.5
    reading = InfluenceReading((0.1, 0.7), normed=normed, aligned=aligned)
    found = published_influence(model, PROMPTS, directions, sigma, reading)
    low, high = band(n, "late")
    kinds = ("resid_mid", "resid_post")
    inside = torch.stack(
        [direction(directions, i, kind) for i in range(low, high + 1) for kind in kinds]
    )
    signs = torch.sign((inside * inside[0]).sum(-1, keepdim=True))
    reference = torch.nn.functional.normalize((inside * signs).mean(0), dim=-1)
    reads = (model.anatomy.final_norm, "out") if normed else (model.anatomy.blocks[-1].block, "out")

    def end(ids: list[int], *extra: Any) -> Tensor:
        last: list[Tensor] = []
        look = (reads[0], lambda x: last.append(x[0, -1].clone()), reads[1])
        with torch.no_grad(), hooks(*extra, look):
            model.hf(torch.tensor([ids]))
        return last[0]

    for i, ids in enumerate(PROMPTS):
        base = end(ids)
        for part in model.anatomy.blocks:
            for p, (kind, site) in enumerate(zip(("attn", "mlp"), kinds, strict=True)):
                for e in range(len(EMOTIONS)):
                    v = direction(directions, part.layer, site)[e]
                    if aligned and float(v @ reference[e]) < 0:
                        v = -v
                    for a, alpha in enumerate(reading.alphas):
                        dose = alpha * sigma[part.layer, p]

                        def push(value: Tensor, step: Tensor = dose * v) -> Tensor:
                            value = value.clone()
                            value[:, -1] += step
                            return value

                        pushed = end(ids, (sublayer_out(part, kind), push, "out"))
                        expected = (pushed - base) @ reference[e] / dose
                        got = found["late"][i, a, e, part.layer, p]
                        torch.testing.assert_close(got, expected, rtol=2e-3, atol=1e-3)


def test_influence_says_what_it_needs(tiny_model: Any) -> None:
    model = tiny_model("llama")
    directions, sigma = random_directions(model), torch.ones(model.n_layers, 2)
    with pytest.raises(DataError, match="neutral prompt"):
        published_influence(model, [], directions, sigma)
    with pytest.raises(DataError, match="must be positive"):
        published_influence(model, PROMPTS, directions, 0 * sigma)
    with pytest.raises(DataError, match="alphas"):
        InfluenceReading(alphas=())
