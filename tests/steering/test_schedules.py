"""Strength over the tokens of a reply, beside the slow way: one token at a time, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.core import DataError
from affectlens.models.generation.generation import GenerationSettings, generate_ids
from affectlens.steering import SteeringPack, SteeringSpec, generate_steered
from affectlens.steering.schedules import Schedule
from tests.steering.oracle import random_pack

PROMPT = [5, 17, 33, 90, 12, 61]


@st.composite
def schedules(draw: Any) -> Schedule:
    tokens = sorted(draw(st.sets(st.integers(0, 500), min_size=1, max_size=5)))
    shares = draw(st.lists(st.floats(0.001, 1), min_size=len(tokens), max_size=len(tokens)))
    return Schedule(tuple(zip(tokens, shares, strict=True)))


@settings(deadline=None)
@given(schedules())
def test_text_reads_back_as_the_same(schedule: Schedule) -> None:
    assert Schedule.parse(str(schedule)) == schedule
    spec = SteeringSpec.parse(f"anger=1;schedule={schedule}")
    assert spec.schedule == schedule and SteeringSpec.parse(str(spec)) == spec
    assert SteeringSpec.parse(spec.to_dict()) == spec
    assert spec != SteeringSpec.parse("anger=1")


def test_shares_by_hand() -> None:
    at = torch.tensor([-3, 0, 5, 10, 15, 20, 99])
    for text, wanted in (
        ("rise:20", [0, 0, 0.25, 0.5, 0.75, 1, 1]),
        ("fall:10", [1, 1, 0.5, 0, 0, 0, 0]),
        ("0:0.2,10:1,20:0.5", [0.2, 0.2, 0.6, 1, 0.75, 0.5, 0.5]),
        ("5:0.5", [0.5] * 7),
    ):
        schedule = Schedule.parse(text)
        assert schedule is not None and str(schedule) == text
        torch.testing.assert_close(schedule.shares(at), torch.tensor(wanted, dtype=torch.float32))


@pytest.mark.parametrize(
    "bad",
    ["", "rise", "rise:x", "rise:0", "up:20", "0:0", "0:2", "0:nan", "5:1,5:0", "9:1,2:0", "-1:1",
     "0.5:1", "rise:1e9", "0:1,1", 7, "rise:20:3", "fall:-2"],
)  # fmt: skip
def test_what_is_no_schedule(bad: Any) -> None:
    with pytest.raises(DataError, match=r"schedule"):
        Schedule.parse(bad)


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def pack(model: Any) -> SteeringPack:
    return random_pack(model)


def by_hand(
    model: Any, pack: SteeringPack, schedule: Schedule, strength: float, n: int
) -> list[int]:
    """Greedy tokens, everything recomputed at every step, vectors added by plain hooks."""
    ids, name = list(PROMPT), "residual.resid_post"
    for _ in range(n):
        shares = schedule.shares(torch.arange(len(ids)) - len(PROMPT))
        shares[: len(PROMPT) - 1] = 0  # last_prompt+generated
        handles = []
        for i, layer in enumerate(pack.layers[name]):
            vector = strength * pack.vectors[name][0, i]

            def hook(
                _m: Any, _a: Any, output: Any, vector: Any = vector, shares: Any = shares
            ) -> Any:
                hidden = output[0] if isinstance(output, tuple) else output
                hidden = hidden + shares[None, :, None] * vector
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            handles.append(model.anatomy.blocks[layer].block.register_forward_hook(hook))
        with torch.inference_mode():
            logits = model.hf(torch.tensor([ids])).logits[0, -1]
        for handle in handles:
            handle.remove()
        ids.append(int(logits.argmax()))
    return ids[len(PROMPT) :]


@pytest.mark.parametrize("text", ["rise:6", "fall:6", "0:1,2:0,4:0.5,8:1"])
def test_tokens_are_those_of_the_slow_way(model: Any, pack: SteeringPack, text: str) -> None:
    schedule = Schedule.parse(text)
    assert schedule is not None
    n = GenerationSettings(max_new_tokens=12, min_new_tokens=12, repetition_penalty=1.0)
    spec = f"anger=8;unit=natural;mode=residual;schedule={text}"
    specs = [spec, "none", spec.partition(";schedule")[0], spec]
    rows = generate_steered(model, pack, [PROMPT] * 4, specs, n)
    assert list(rows[0]) == list(rows[3]) == by_hand(model, pack, schedule, 8.0, 12)
    assert rows[1] == generate_ids(model, [PROMPT], n)[0]  # its neighbours change nothing
    alone = generate_steered(model, pack, [PROMPT], [spec], n)
    assert alone[0] == rows[0]
    assert rows[0] != rows[2]


@pytest.mark.parametrize("operator", ["add", "add_keep_norm", "clamp"])
def test_all_the_way_is_no_schedule(model: Any, pack: SteeringPack, operator: str) -> None:
    n = GenerationSettings(max_new_tokens=8)
    spec = f"anger=5;unit=natural;operator={operator}"
    full, plain, late = generate_steered(
        model, pack, [PROMPT] * 3, [f"{spec};schedule=0:1", spec, f"{spec};schedule=90:0,91:1"], n
    )
    assert full == plain
    assert late == generate_ids(model, [PROMPT], n)[0]


def test_half_way_is_half_way(pack: SteeringPack) -> None:
    hidden = torch.randn(1, 4, pack.d_model)
    rows, shares = torch.tensor([1]), torch.tensor([[0.0, 0.5, 1.0, 0.25]])
    for text in ("anger=2", "anger=1;operator=project_out", "anger=2;operator=add_keep_norm"):
        for site in pack.table([text]).sites.values():
            whole = site.apply(hidden, rows, None)
            found = site.apply(hidden, rows, None, shares)
            wanted = hidden + shares[..., None] * (whole - hidden)
            torch.testing.assert_close(found, wanted)
            assert found[0, 0].equal(hidden[0, 0]) and found[0, 2].equal(whole[0, 2])


@pytest.mark.parametrize(
    "text", ["0:0.8,2:0.1,9:0", "0:0.6,2:0.2,9:0", "3:0.3,5:0.9,6:1", "rise:7"]
)
def test_points_are_met_exactly_with_and_without_tensors(text: str) -> None:
    """Behind a last share of 0 nothing is left, not a rest of rounding."""
    schedule = Schedule.parse(text)
    assert schedule is not None
    tokens = torch.arange(-5, 200)
    by_tensor, by_array = schedule.shares(tokens), schedule.shares_at(tokens.numpy())
    np.testing.assert_allclose(by_tensor.numpy(), by_array, atol=1e-6)
    for found in (by_tensor.numpy(), by_array):
        for token, share in schedule.points:
            assert found[5 + token] == np.float32(share)
        assert (found[5 + schedule.points[-1][0] :] == np.float32(schedule.points[-1][1])).all()
        assert (found[: 5 + schedule.points[0][0]] == np.float32(schedule.points[0][1])).all()


def test_curves_of_more_points_than_anybody_draws_are_refused() -> None:
    points = ",".join(f"{i}:{i % 2}" for i in range(100))
    with pytest.raises(DataError, match="at most 64 points, not 100"):
        Schedule.parse(points)


def test_a_schedule_that_meets_no_steered_token_is_refused(pack: SteeringPack) -> None:
    with pytest.raises(DataError, match="of which positions=prompt steers none"):
        pack.resolve("anger=1;mode=residual;positions=prompt;schedule=rise:5")


def test_half_precision_is_rounded_once(model: Any, pack: SteeringPack) -> None:
    """As in float32, and then rounded: what a server's tables do, too."""
    spec = "anger=3;unit=natural;mode=residual;positions=all;schedule=0:0.37"
    table = pack.table([spec])
    rows, shares = torch.ones(1, dtype=torch.long), torch.full((1, 6), 0.37)
    for site in table.sites.values():
        hidden = torch.randn(1, 6, pack.d_model).to(torch.bfloat16)
        wanted = site.apply(hidden.float(), rows, None, shares).to(torch.bfloat16)
        assert torch.equal(site.apply(hidden, rows, None, shares), wanted)
