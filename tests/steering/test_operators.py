"""Operators against plain loops; an operator of one's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.core.errors import DataError, UnknownNameError
from affectlens.core.places import Site, WritePoint
from affectlens.models.hooking.hooks import reading
from affectlens.serving.coefficients import coefficients
from affectlens.serving.settings import Settings
from affectlens.serving.slot_tables import Capacity, Slots
from affectlens.steering.operators import OPERATORS, Operator
from affectlens.steering.operators import affine as op
from affectlens.steering.pack import SteeringPack
from affectlens.steering.pack_places import places_of, vectors_at
from tests.steering.oracle import random_pack

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def everywhere(name: str, hidden: Tensor, vectors: Tensor, strengths: Tensor | None = None):
    """An operator on all tokens; strengths in units of vectors of norm 1."""
    if strengths is None:
        strengths = torch.ones(len(vectors))
    doses = strengths[:, None] * op.unit(vectors)
    affine = op.Affine.of(OPERATORS[name], {1: (doses, strengths)}, 2)
    return affine.apply(hidden, torch.ones(len(hidden), dtype=torch.long), None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_minus_zero_changes_no_bit(dtype: torch.dtype) -> None:
    values = [0.0, -0.0, 1.0, -1.0, 6e-8, -6e-8, 65504.0, torch.inf, -torch.inf, 1e-30, -1e-38]
    hidden = torch.tensor(values, dtype=dtype)[None, None]
    out = op.add(hidden, op.quiet(torch.zeros(1, 1, len(values))))
    assert out.dtype == dtype
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(out.view(bits), hidden.view(bits))
    # Which is not true of plus zero.
    plus = op.add(hidden, torch.zeros(1, 1, len(values)))
    assert not torch.equal(plus.view(bits), hidden.view(bits))


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_rounds_once(dtype: torch.dtype) -> None:
    hidden, vector = some(2, 3, 16).to(dtype), some(2, 1, 16, seed=1)
    exact = hidden.double() + vector.double()
    torch.testing.assert_close(op.add(hidden, vector), exact.to(dtype), atol=0, rtol=1e-6)
    if dtype == torch.bfloat16:  # rounding the vector first is worse
        twice = hidden + vector.to(dtype)
        assert (op.add(hidden, vector) - exact).abs().sum() < (twice - exact).abs().sum()


def test_keeping_the_norm() -> None:
    hidden, vector = some(2, 3, 16), some(2, 1, 16, seed=1)
    on = torch.tensor([[True, False, True], [False, False, True]])
    out = op.move(hidden, on, vector, keeps_norm=True)
    for i in range(2):
        for t in range(3):
            if not on[i, t]:
                assert torch.equal(out[i, t], hidden[i, t])
                continue
            moved = hidden[i, t] + vector[i, 0]
            torch.testing.assert_close(out[i, t], moved * hidden[i, t].norm() / moved.norm())
    # A vector that takes everything away leaves no direction to keep the norm along.
    assert bool(op.move(hidden, on, -hidden, keeps_norm=True).isfinite().all())


def test_one_direction_is_the_textbook_formula() -> None:
    hidden, direction = some(2, 3, 16), some(1, 16, seed=1) * 3
    v = direction[0] / direction[0].norm()
    for i in range(2):
        for t in range(3):
            h = hidden[i, t]
            out = everywhere("project_out", hidden, direction)[i, t]
            torch.testing.assert_close(out, h - (h @ v) * v)
            half = everywhere("project_out", hidden, direction, torch.tensor([0.5]))[i, t]
            torch.testing.assert_close(half, h - 0.5 * (h @ v) * v)
            set_to = everywhere("clamp", hidden, direction, torch.tensor([2.0]))[i, t]
            torch.testing.assert_close(set_to, h + (2.0 - h @ v) * v)


@pytest.mark.parametrize("dependent", [False, True])
def test_several_directions_leave_no_projection(dependent: bool) -> None:
    hidden, directions = some(2, 3, 16), some(4, 16, seed=1)
    if dependent:  # as centred directions are: they sum to zero
        directions = directions - directions.mean(0)
    units = directions / directions.norm(dim=-1, keepdim=True)
    out = everywhere("project_out", hidden, directions)
    assert (out @ units.T).abs().max() < 1e-5
    # Nothing outside their span is touched: the change is the least-squares projection.
    basis = torch.linalg.svd(units.T, full_matrices=False)[0][:, : 3 if dependent else 4]
    torch.testing.assert_close(out, hidden - hidden @ basis @ basis.T, atol=1e-5, rtol=1e-4)
    if not dependent:
        values = torch.tensor([1.0, -2.0, 0.5, 3.0])
        got = everywhere("clamp", hidden, directions, values) @ units.T
        torch.testing.assert_close(got, values.expand_as(got), atol=1e-5, rtol=1e-4)


def test_zero_rows_do_nothing() -> None:
    hidden, directions = some(1, 2, 8), some(1, 8, seed=1)
    padded = torch.cat([directions, torch.zeros(2, 8)])
    torch.testing.assert_close(
        everywhere("project_out", hidden, padded), everywhere("project_out", hidden, directions)
    )
    assert torch.equal(op.unit(torch.zeros(3)), torch.zeros(3))
    units = op.unit(directions)
    torch.testing.assert_close(op.dual_basis(torch.cat([units, torch.zeros(2, 8)]))[:1], units)


def reflected(hidden: Tensor, vector: Tensor) -> Tensor:
    v = vector / vector.norm()
    return hidden - 2 * (hidden @ v)[..., None] * v


def test_an_operator_of_ones_own_is_one_row(tiny_model: Any) -> None:
    """Steers in Transformers and in a server's tables like those that come with the library."""
    model = tiny_model("llama")
    pack = random_pack(model)

    def mirror(strengths: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return -2 * strengths, torch.zeros_like(lengths)

    request = "anger=1;operator=reflect;mode=residual;positions=all"
    seen: list[Tensor] = []
    first = Site(pack.layers["residual.resid_post"][0], "resid_post")
    with OPERATORS.adding(Operator("reflect", "Mirror the emotion", projects=mirror, share=1.0)):
        for spec in (None, request):
            with (
                torch.no_grad(),
                pack.steer(model, spec),
                reading(model.anatomy, [first], lambda _, x: seen.append(x.clone())),
            ):
                model.hf(input_ids=torch.tensor([[5, 6, 7, 8]]))
        plain, steered = seen
        wanted = reflected(plain, pack.vectors["residual.resid_post"][0, 0])
        torch.testing.assert_close(steered, wanted)
        assert not torch.allclose(plain, wanted)
        torch.testing.assert_close(served(pack, request, plain[0]), wanted[0])
    with pytest.raises(UnknownNameError, match="operator 'reflect'"):
        pack.resolve(request)


def test_an_operator_may_add_project_and_keep_the_norm_at_once(tiny_model: Any) -> None:
    pack = random_pack(tiny_model("llama"))
    clamp = OPERATORS["clamp"].projects
    both = Operator("both", "Add and then set", adds=True, projects=clamp, keeps_norm=True)
    hidden = some(5, pack.d_model, seed=3)
    request = "anger=2;operator=both;mode=residual;positions=all;unit=raw"
    with OPERATORS.adding(both):
        first = next(iter(pack.table([request]).sites.values()))
        out = first.apply(hidden[None], torch.tensor([1]), None)[0]
        torch.testing.assert_close(served(pack, request, hidden), out)
    vector = pack.vectors["residual.resid_post"][0, 0]
    v = vector / vector.norm()
    moved = hidden + 2 * v + (2 - hidden @ v)[:, None] * v
    lengths = hidden.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(out, moved * lengths)


def served(pack: SteeringPack, request: str, hidden: Tensor) -> Tensor:
    """What a server's tables make of hidden states ``[token, d]`` at a pack's first block."""
    places = places_of(pack)
    vectors = vectors_at(pack, places)
    slots = Slots(places, Capacity(1, len(pack.emotions), len(hidden), pack.d_model), "cpu")
    slots.put_vectors(0, vectors)
    slots.write(1, 0, coefficients(pack, pack.resolve(request), places, vectors))
    slots.set_rows(torch.ones(len(hidden), dtype=torch.long))
    block = pack.layers["residual.resid_post"][0]
    return slots.apply_at(places.index(WritePoint(block, "resid_post")), hidden)


def turned(hidden: Tensor, towards: Tensor, strength: float) -> Tensor:
    return everywhere("rotate", hidden, towards[None], torch.tensor([strength]))


def angle(a: Tensor, b: Tensor) -> Tensor:
    cosine = torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=-1)
    return torch.rad2deg(cosine.clamp(-1, 1).arccos())


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.9, -0.4])
def test_rotation_keeps_the_norm_and_turns_by_the_asked_angle(strength: float) -> None:
    hidden, direction = some(3, 4, 16) * 7, some(16, seed=1)
    out = turned(hidden, direction, strength)
    torch.testing.assert_close(out.norm(dim=-1), hidden.norm(dim=-1))
    goal = direction if strength > 0 else -direction
    between = angle(hidden, goal.expand_as(hidden))
    asked = torch.full_like(between, abs(strength) * 90).minimum(between)
    torch.testing.assert_close(angle(hidden, out), asked, atol=0.05, rtol=0)
    # In the plane of the two: the angle that is left is what was there less what was asked.
    torch.testing.assert_close(angle(out, goal.expand_as(out)), between - asked, atol=0.05, rtol=0)


def test_rotation_by_a_plane_rotation_matrix() -> None:
    """Against the matrix of a plane rotation, made by Gram and Schmidt, number by number."""
    hidden, direction = some(1, 1, 8).double(), some(8, seed=1).double()
    n = hidden[0, 0] / hidden[0, 0].norm()
    q = direction - (direction @ n) * n
    q = q / q.norm()
    theta = 0.2 * torch.pi / 2
    plane = torch.stack([n, q])
    turn = torch.tensor(
        [[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]],
        dtype=torch.float64,
    )
    matrix = torch.eye(8, dtype=torch.float64) + plane.T @ (turn - torch.eye(2)) @ plane
    out = turned(hidden.float(), direction.float(), 0.2)[0, 0]
    torch.testing.assert_close(out.double(), matrix @ hidden[0, 0], atol=1e-5, rtol=1e-5)


def test_rotation_never_passes_its_goal_and_leaves_alone_what_has_no_plane() -> None:
    direction = some(16, seed=1)
    near = (direction + 0.1 * some(16, seed=2)).expand(1, 2, 16)
    out = turned(near, direction, 2.0)
    torch.testing.assert_close(op.unit(out), op.unit(direction).expand_as(out), atol=1e-4, rtol=0)
    along = torch.stack([direction * 3, -direction, torch.zeros(16)])[None]
    assert torch.equal(turned(along, direction, 0.5), along)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotation_leaves_other_tokens_bit_for_bit(dtype: torch.dtype) -> None:
    hidden, vector = some(2, 3, 16).to(dtype), some(2, 1, 16, seed=1) / 20
    on = torch.tensor([[True, False, True], [False, False, True]])
    out = op.turn(hidden, on, vector)
    assert out.dtype == dtype
    assert torch.equal(out[~on], hidden[~on])
    assert not torch.equal(out[on], hidden[on])


def test_a_server_refuses_to_rotate_in_one_sentence(tiny_model: Any) -> None:
    pack = random_pack(tiny_model("llama"))
    with pytest.raises(DataError, match="operator=rotate; use one of add, add_keep_norm"):
        served(pack, "anger=0.2;operator=rotate;mode=residual", some(2, pack.d_model))
    with pytest.raises(UnknownNameError, match="operator of a server 'rotate'"):
        Settings.of({"affectlens": {"packs": "p.safetensors", "operators": ["rotate"]}})
    assert "rotate" not in Settings({"p": "p.safetensors"}).operators


def test_amplifying_multiplies_what_there_is(tiny_model: Any) -> None:
    hidden, direction = some(2, 3, 16), some(1, 16, seed=1) * 3
    v = direction[0] / direction[0].norm()
    out = everywhere("amplify", hidden, direction, torch.tensor([2.0]))
    torch.testing.assert_close(out, hidden + 2 * (hidden @ v)[..., None] * v)
    pack = random_pack(tiny_model("llama"))
    request = "anger=2,fear=-1;operator=amplify;mode=residual;positions=all"
    hidden = some(5, pack.d_model, seed=3)
    first = next(iter(pack.table([request]).sites.values()))
    steered = first.apply(hidden[None], torch.tensor([1]), None)[0]
    torch.testing.assert_close(served(pack, request, hidden), steered)
