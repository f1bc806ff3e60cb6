"""Interventions against hooks written by hand, and against algebra."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.circuits.interventions import (
    INTERVENTIONS,
    Intervention,
    add,
    clamp,
    heads,
    intervening,
    neurons,
    project_out,
    replace,
    scale,
    zero,
)
from affectlens.core.errors import DataError, UnknownNameError
from affectlens.core.places import POINTS, WritePoint

IDS = torch.tensor([[5, 17, 33, 42, 8, 99, 120, 7], [*range(60, 68)]])


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        return model.hf(input_ids=ids, use_cache=False).logits


def by_hand(model: Any, module: Any, change: Any) -> Tensor:
    """Logits with the input of a module changed by a plain hook."""

    def before(_: Any, args: Any) -> Any:
        value = args[0]
        flat = value.ndim == 2  # OPT runs its MLP on batch and position as one axis
        value = value.reshape(*IDS.shape, -1) if flat else value
        new = change(value.clone())
        return (new.reshape(-1, new.shape[-1]) if flat else new, *args[1:])

    handle = module.register_forward_pre_hook(before)
    try:
        return logits(model)
    finally:
        handle.remove()


class TestWhatTheyDo:
    """In every family, what hooks by hand do."""

    def test_a_head_of_one_row_and_neurons_of_another(self, each_model: Any) -> None:
        model = each_model
        part = model.anatomy.blocks[1]
        d_head = model.anatomy.width("z") // part.n_heads
        at, head = heads(model, 1, [2])
        where, chosen = neurons(model, 1, [3, 10])
        row = torch.tensor([True, False])[:, None, None]
        values = torch.randn(model.anatomy.width("mlp_post"))

        def z(value: Tensor) -> Tensor:
            value[0, :, 2 * d_head : 3 * d_head] = 0
            return value

        def mlp(value: Tensor) -> Tensor:
            value[1, :, [3, 10]] = values[[3, 10]]
            return value

        only_heads = by_hand(model, part.o_proj, z)
        only_neurons = by_hand(model, part.down_proj, mlp)
        with intervening(
            model,
            [
                Intervention(at, zero(), head & row),
                Intervention(where, replace(values), chosen & ~row),
            ],
        ):
            both = logits(model)
        torch.testing.assert_close(both[0], only_heads[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(both[1], only_neurons[1], rtol=1e-5, atol=1e-5)
        plain = logits(model)
        assert not torch.allclose(both[0], plain[0], atol=1e-4)
        assert not torch.allclose(both[1], plain[1], atol=1e-4)

    def test_patching_the_stream_gives_the_other_run(self, tiny_model: Any) -> None:
        """All positions of one block's output from another text: from there on it is that text."""
        model = tiny_model("llama")
        kept: list[Tensor] = []
        handle = model.anatomy.blocks[1].block.register_forward_hook(
            lambda _m, _a, out: kept.append(out[0] if isinstance(out, tuple) else out)
        )
        other = logits(model, IDS.flip(0))
        handle.remove()
        with intervening(model, [Intervention(WritePoint(1, "resid_post"), replace(kept[0]))]):
            patched = logits(model)
        torch.testing.assert_close(patched, other, rtol=0, atol=0)

    @pytest.mark.parametrize("point", POINTS)
    def test_what_changes_nothing_changes_no_bit(self, tiny_model: Any, point: str) -> None:
        model = tiny_model("llama")
        width = {"o_proj_in": model.anatomy.width("z"), "down_proj_in": model.anatomy.d_mlp}
        mask = torch.zeros(2, 8, width.get(point, model.d_model), dtype=torch.bool)
        mask[1, 7] = True
        with intervening(model, [Intervention(WritePoint(0, point), scale(3.0), mask)]):
            changed = logits(model)
        plain = logits(model)
        assert torch.equal(changed[0], plain[0])
        assert torch.equal(changed[1, :7], plain[1, :7])
        assert not torch.allclose(changed[1, 7], plain[1, 7], atol=1e-4)
        with intervening(model, [Intervention(WritePoint(0, point), scale(1.0))]):
            assert torch.equal(logits(model), plain)

    def test_several_at_a_place_happen_in_order(self, tiny_model: Any) -> None:
        model = tiny_model("llama")
        at = WritePoint(1, "resid_post")
        v, w = torch.randn(model.d_model), torch.randn(model.d_model)
        with intervening(model, [Intervention(at, add(v)), Intervention(at, scale(2.0))]):
            one = logits(model)
        with intervening(model, [Intervention(at, scale(2.0)), Intervention(at, add(2 * v))]):
            other = logits(model)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        with (
            intervening(model, [Intervention(at, add(v))]),
            intervening(model, [Intervention(at, add(w))]),
        ):
            nested = logits(model)
        with intervening(model, [Intervention(at, add(v + w))]):
            torch.testing.assert_close(logits(model), nested, rtol=1e-5, atol=1e-5)


class TestAlgebra:
    """Pure functions of the values."""

    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))

    def test_projected_out_is_orthogonal_and_idempotent(self) -> None:
        directions = torch.randn(3, 12)
        directions[2] = directions[0] - 2 * directions[1]  # they may depend on each other
        change = project_out(directions)
        once = change(self.x)
        torch.testing.assert_close(once @ directions.T, torch.zeros(2, 5, 3), rtol=0, atol=1e-5)
        torch.testing.assert_close(change(once), once, rtol=0, atol=1e-6)
        kept = self.x - once
        rows = torch.linalg.lstsq(directions[:2].T, kept.reshape(-1, 12).T).solution
        torch.testing.assert_close(
            directions[:2].T @ rows, kept.reshape(-1, 12).T, atol=1e-5, rtol=0
        )

    def test_clamped_has_that_projection_and_the_rest_as_it_was(self) -> None:
        direction = torch.randn(12)
        unit = direction / direction.norm()
        new = clamp(direction, -1.5)(self.x)
        torch.testing.assert_close(new @ unit, torch.full((2, 5), -1.5), rtol=0, atol=1e-5)
        rest = project_out(direction[None])
        torch.testing.assert_close(rest(new), rest(self.x), rtol=0, atol=1e-5)


class TestBadInput:
    """One sentence each."""

    def test_refused_when_made(self, tiny_model: Any) -> None:
        model = tiny_model("llama")
        at = WritePoint(0, "resid_post")
        with pytest.raises(DataError, match="changes no value at all"):
            Intervention(at, zero(), torch.zeros(1, 1, 4, dtype=torch.bool))
        with pytest.raises(DataError, match="mask of truth values"):
            Intervention(at, zero(), torch.ones(1, 1, 4))
        with pytest.raises(DataError, match="NaN or infinity"):
            replace(torch.tensor([1.0, float("nan")]))
        with pytest.raises(DataError, match="is zero"):
            project_out(torch.zeros(2, 4))
        with pytest.raises(DataError, match="finite number"):
            scale(float("inf"))
        with pytest.raises(UnknownNameError, match="head of layer 1"):
            heads(model, 1, [4])
        with pytest.raises(UnknownNameError, match="layer"):
            neurons(model, 3, [0])
        with pytest.raises(DataError, match="at least one"), intervening(model, []):
            pass

    def test_refused_in_the_pass(self, tiny_model: Any) -> None:
        model = tiny_model("llama")
        at = WritePoint(0, "resid_post")
        plain = logits(model)
        too_wide = Intervention(at, add(torch.ones(model.d_model + 1)))
        with pytest.raises(DataError, match="does not fit"), intervening(model, [too_wide]):
            logits(model)
        longer = torch.ones(1, 9, 1, dtype=torch.bool)
        uneven = Intervention(at, zero(), longer)
        with pytest.raises(DataError, match="Texts must run whole"), intervening(model, [uneven]):
            logits(model)
        deep = Intervention(WritePoint(7, "resid_post"), zero())
        with pytest.raises(UnknownNameError, match="layer"), intervening(model, [deep]):
            pass
        assert torch.equal(logits(model), plain)


def test_they_are_listed() -> None:
    assert list(INTERVENTIONS)[:2] == ["zero", "replace"]
    assert {"add", "scale", "clamp", "project_out"} <= set(INTERVENTIONS)
    assert all(row.help and not row.help.endswith(".") for row in INTERVENTIONS.values())
