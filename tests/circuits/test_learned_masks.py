"""Learned masks: slopes against finite differences, and sets against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.circuits.attribution.gradients import gradient_scores
from affectlens.circuits.attribution.learned_masks import (
    MaskSettings,
    learned_masks,
    relaxed_falls,
)
from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.attribution.slopes import Against
from affectlens.circuits.attribution.stand_ins import StandIns
from affectlens.circuits.attribution.total_effect import joint_effects, set_effects
from affectlens.circuits.attribution.weights import float32_gradients
from affectlens.circuits.interventions import Intervention, intervening
from affectlens.circuits.tasks import CarryOver
from affectlens.core.errors import DataError
from affectlens.core.places import WritePoint
from tests.circuits.test_carry_over import EMOTIONS, corpus


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def given(request: pytest.FixtureRequest, tiny_model: Any) -> Any:
    model = tiny_model(request.param)
    task = CarryOver.of(model, corpus(2), EMOTIONS, named=True)
    return model, task, unit_means(model, corpus(), EMOTIONS, position="mean:reply")


def shares(model: Any, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n = model.n_layers
    return {
        "heads": torch.rand(n, model.anatomy.n_heads, generator=generator) * 0.6,
        "neurons": torch.rand(n, model.anatomy.d_mlp, generator=generator) * 0.6,
    }


def margin(model: Any, task: Any, means: Any, alpha: dict[str, Tensor]) -> float:
    """Of fear, by hooks of our own at every place of units."""
    stands = StandIns.of(model, means).values
    changes = []
    for part in model.anatomy.blocks:
        wide = alpha["heads"][part.layer].repeat_interleave(part.d_head)
        for point, share in (("o_proj_in", wide), ("down_proj_in", alpha["neurons"][part.layer])):
            at = WritePoint(part.layer, point)
            changes.append(Intervention(at, lambda x, s=share, m=stands[at]: (1 - s) * x + s * m))
    with torch.no_grad(), intervening(model, changes):
        found = [float(task.objective(model, "fear", text)) for text in task.texts("fear") if text]
    return sum(found) / len(found)


def test_slopes_equal_finite_differences(given: Any) -> None:
    model, task, means = given
    alpha, step = shares(model), 1e-2
    with float32_gradients(model):
        falls = relaxed_falls(model, task, means, "fear", alpha)
    for kind, place in (("heads", (0, 1)), ("heads", (2, 2)), ("neurons", (1, 7))):
        ends = list[float]()
        for sign in (1, -1):
            moved = {k: v.clone() for k, v in alpha.items()}
            moved[kind][place] += sign * step
            ends.append(margin(model, task, means, moved))
        slope = (ends[1] - ends[0]) / (2 * step)
        assert float(falls[kind][place]) == pytest.approx(slope, rel=0.03, abs=2e-5)


def test_where_nothing_is_replaced_they_are_attribution_patching(given: Any) -> None:
    model, task, means = given
    nothing = {kind: torch.zeros_like(value) for kind, value in shares(model).items()}
    plain = gradient_scores(model, task, Against(means), ["fear"])
    with float32_gradients(model):
        falls = relaxed_falls(model, task, means, "fear", nothing)
    torch.testing.assert_close(falls["heads"], plain.heads[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(falls["neurons"], plain.neurons[0], rtol=1e-4, atol=1e-6)


def highest(scores: Tensor, count: int) -> Tensor:
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[scores.flatten().topk(count).indices] = True
    return mask.view(scores.shape)


def test_never_worse_than_slopes_and_sometimes_better(given: Any) -> None:
    """On the texts it is learned on, all units of a set taken out at once."""
    model, task, means = given
    found = learned_masks(model, task, means, EMOTIONS, MaskSettings(neurons=12, heads=3))
    plain = gradient_scores(model, task, Against(means), EMOTIONS)
    better = list[float]()
    for e, emotion in enumerate(EMOTIONS):
        sets = [
            {"heads": highest(s.heads[e], 3), "neurons": highest(s.neurons[e], 12)}
            for s in (found, plain)
        ]
        learned, slopes = joint_effects(model, task, means, emotion, sets).tolist()
        assert learned >= slopes - 1e-6
        better.append(learned - slopes)
        assert (found.neurons[e] >= 1).sum() == 12 and (found.heads[e] >= 1).sum() == 3
    assert max(better) > 0


def test_two_heads_are_near_the_best_pair(given: Any) -> None:
    """Brute force over all pairs."""
    model, task, means = given
    shape = (model.n_layers, model.anatomy.n_heads)
    pairs = list[Tensor]()
    for pair in itertools.combinations(range(shape[0] * shape[1]), 2):
        mask = torch.zeros(shape[0] * shape[1], dtype=torch.bool)
        mask[list(pair)] = True
        pairs.append(mask.view(shape))
    costs = set_effects(model, task, means, "fear", kind="heads", sets=pairs)
    found = learned_masks(model, task, means, ["fear"], MaskSettings(neurons=0, heads=2))
    own = {"heads": found.heads[0] >= 1}
    mine = float(joint_effects(model, task, means, "fear", [own])[0])
    assert float((costs <= mine + 1e-6).float().mean()) > 0.95


def test_what_cannot_be_learned(given: Any) -> None:
    model, task, means = given
    with pytest.raises(DataError, match="at least one unit"):
        MaskSettings(neurons=0, heads=0)
    with pytest.raises(DataError, match="one step or more"):
        MaskSettings(steps=0)
    with pytest.raises(DataError, match="ask for fewer"):
        learned_masks(model, task, means, ["fear"], MaskSettings(heads=500))
    with pytest.raises(DataError, match="holds no heads"):
        joint_effects(model, task, means, "fear", [{"heads": torch.zeros(4, 4, dtype=torch.bool)}])
