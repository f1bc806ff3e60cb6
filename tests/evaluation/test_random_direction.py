"""The random arm pushes as hard as the arm it is the control of."""

from __future__ import annotations

import pytest
import torch

from affectlens.core import EMOTIONS, Provenance, UnknownNameError
from affectlens.evaluation import random_pack
from affectlens.steering import SteeringPack
from affectlens.steering.doses import doses_at
from affectlens.steering.intensity import DoseResponse
from affectlens.steering.spec import SteeringSpec


def pack() -> SteeringPack:
    layers = {"residual.resid_post": (1, 3, 4), "circuit.o_proj_out": (0, 2)}
    generator = torch.Generator().manual_seed(0)
    vectors = {
        name: torch.randn(6, len(n), 32, generator=generator) * 3 for name, n in layers.items()
    }
    vectors["residual.resid_post"][2, 1] = 0  # an emotion that is not steered there
    return SteeringPack(
        emotions=EMOTIONS,
        vectors=vectors,
        layers=layers,
        n_layers=5,
        d_model=32,
        recommended={
            "residual": {e: 0.5 + i for i, e in enumerate(EMOTIONS)},
            "circuit": dict.fromkeys(EMOTIONS, 1.0),
        },
        positions=dict.fromkeys(("residual", "circuit"), "generated"),
        provenance=Provenance("pack", model="m"),
    )


@pytest.mark.parametrize(("mode", "point"), [("residual", "resid_post"), ("circuit", "o_proj_out")])
def test_equal_norms_and_strengths(mode: str, point: str) -> None:
    true = pack()
    control = random_pack(true, mode, seed=1)
    assert control.modes == (mode,)
    assert control.recommended[mode] == true.recommended[mode]
    for index in range(len(true.layers[f"{mode}.{point}"])):
        for emotion in EMOTIONS:
            spec = SteeringSpec({emotion: 1.0}, mode=mode)
            ours = doses_at(true, true.resolve(spec), point, index)
            random = doses_at(control, control.resolve(spec), point, index)
            torch.testing.assert_close(random.norm(), ours.norm())
            if float(ours.norm()):
                cosine = torch.cosine_similarity(random, ours, dim=-1)
                assert abs(float(cosine)) < 0.6


@pytest.mark.parametrize("mode", ["residual", "circuit"])
def test_what_was_measured_of_the_true_directions_is_not_said_of_random_ones(mode: str) -> None:
    line = dict.fromkeys(EMOTIONS, DoseResponse((0, 1), (0, 0.9)))
    other = "circuit" if mode == "residual" else "residual"
    true = pack().with_first(other)
    for one in (mode, other):
        true = true.with_responses("heard", one, line)
    control = random_pack(true, mode, seed=1)
    assert control.modes == (mode,) and control.first is None
    assert not control.responses and not control.enough


def test_one_direction_per_emotion_and_seed() -> None:
    true = pack()
    one, two = (random_pack(true, "residual", seed).vectors for seed in (1, 2))
    drawn = one["residual.resid_post"]
    for e in range(6):
        layers = drawn[e][drawn[e].norm(dim=-1) > 0]
        cosines = torch.cosine_similarity(layers[:1], layers, dim=-1)
        torch.testing.assert_close(cosines, torch.ones_like(cosines))
    assert torch.cosine_similarity(drawn[0, 0], drawn[1, 0], dim=0).abs() < 0.6
    assert not torch.equal(drawn, two["residual.resid_post"])
    assert torch.equal(drawn, random_pack(true, "residual", 1).vectors["residual.resid_post"])
    with pytest.raises(UnknownNameError):
        random_pack(random_pack(true, "residual"), "circuit")
