"""Operators against plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from affectlens.steering import operators as op

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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


def test_add_keep_norm() -> None:
    hidden, vector = some(2, 3, 16), some(2, 1, 16, seed=1)
    on = torch.tensor([[True, False, True], [False, False, True]])
    out = op.add_keep_norm(hidden, vector, on)
    for i in range(2):
        for t in range(3):
            if not on[i, t]:
                assert torch.equal(out[i, t], hidden[i, t])
                continue
            moved = hidden[i, t] + vector[i, 0]
            torch.testing.assert_close(out[i, t], moved * hidden[i, t].norm() / moved.norm())
    # A vector that takes everything away leaves no direction to keep the norm along.
    assert bool(op.add_keep_norm(hidden, -hidden, on).isfinite().all())


def test_one_direction_is_the_textbook_formula() -> None:
    hidden, direction = some(2, 3, 16), some(1, 16, seed=1) * 3
    v = direction[0] / direction[0].norm()
    for i in range(2):
        for t in range(3):
            h = hidden[i, t]
            out = op.project_out(hidden, direction)[i, t]
            torch.testing.assert_close(out, h - (h @ v) * v)
            half = op.project_out(hidden, direction, 0.5)[i, t]
            torch.testing.assert_close(half, h - 0.5 * (h @ v) * v)
            set_to = op.clamp(hidden, direction, torch.tensor([2.0]))[i, t]
            torch.testing.assert_close(set_to, h + (2.0 - h @ v) * v)


@pytest.mark.parametrize("dependent", [False, True])
def test_several_directions_leave_no_projection(dependent: bool) -> None:
    hidden, directions = some(2, 3, 16), some(4, 16, seed=1)
    if dependent:  # as centred directions are: they sum to zero
        directions = directions - directions.mean(0)
    units = directions / directions.norm(dim=-1, keepdim=True)
    out = op.project_out(hidden, directions)
    assert (out @ units.T).abs().max() < 1e-5
    # Nothing outside their span is touched: the change is the least-squares projection.
    basis = torch.linalg.svd(units.T, full_matrices=False)[0][:, : 3 if dependent else 4]
    torch.testing.assert_close(out, hidden - hidden @ basis @ basis.T, atol=1e-5, rtol=1e-4)
    if not dependent:
        values = torch.tensor([1.0, -2.0, 0.0, 3.0])
        got = op.clamp(hidden, directions, values) @ units.T
        torch.testing.assert_close(got, values.expand_as(got), atol=1e-5, rtol=1e-4)


def test_zero_rows_do_nothing() -> None:
    hidden, directions = some(1, 2, 8), some(1, 8, seed=1)
    padded = torch.cat([directions, torch.zeros(2, 8)])
    torch.testing.assert_close(op.project_out(hidden, padded), op.project_out(hidden, directions))
    assert torch.equal(op.unit(torch.zeros(3)), torch.zeros(3))
    units = op.unit(directions)
    torch.testing.assert_close(op.dual_basis(torch.cat([units, torch.zeros(2, 8)]))[:1], units)
