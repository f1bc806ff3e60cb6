"""Values of other runs: against hooks by hand, and by what must follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from affectlens.circuits.interventions import (
    INTERVENTIONS,
    Intervention,
    donor_values,
    group_mean,
    heads,
    intervening,
    mean_by_position,
    neurons,
    patch,
    resample,
)
from affectlens.core.errors import DataError, UnknownNameError
from affectlens.core.places import WritePoint
from tests.circuits.test_interventions import logits

OTHER = torch.tensor([[9, 9, 4, 77, 120, 3, 6, 7], [*range(90, 98)]])


def by_hand(model: Any, layer: int, own: slice, new: torch.Tensor) -> torch.Tensor:
    """Logits with a slice of the heads' values given."""

    def before(_: Any, args: Any) -> Any:
        value = args[0].clone()
        value[..., own] = new
        return (value, *args[1:])

    handle = model.anatomy.blocks[layer].o_proj.register_forward_pre_hook(before)
    try:
        return logits(model)
    finally:
        handle.remove()


def test_a_patched_head_has_the_other_runs_values(each_model: Any) -> None:
    model = each_model
    at, mask = heads(model, 1, [2])
    kept: list[torch.Tensor] = []
    handle = model.anatomy.blocks[1].o_proj.register_forward_pre_hook(
        lambda _m, args: kept.append(args[0].clone())
    )
    logits(model, OTHER)
    handle.remove()
    donor = donor_values(model, [at], OTHER)[at]
    torch.testing.assert_close(donor, kept[0])
    own = slice(2 * model.anatomy.d_head, 3 * model.anatomy.d_head)
    for values, row in (
        (patch(donor), kept[0]),
        (patch(donor[:1]), kept[0][:1].expand(2, -1, -1)),
        (mean_by_position(donor), kept[0].mean(0, keepdim=True).expand(2, -1, -1)),
        (group_mean(donor, "ab", "ba"), kept[0].flip(0)),
        (resample(donor, "ab", "ab"), kept[0].flip(0)),
    ):
        with intervening(model, [Intervention(at, values, mask)]):
            found = logits(model)
        torch.testing.assert_close(found, by_hand(model, 1, own, row[..., own]))
    assert not torch.allclose(found, logits(model), atol=1e-4)


def test_all_of_another_run_is_that_run(tiny_model: Any) -> None:
    """Everything that the first block writes, and the embedding, from another text."""
    model = tiny_model("llama")
    points = [
        WritePoint(0, "resid_pre"),
        WritePoint(0, "o_proj_out"),
        WritePoint(0, "down_proj_out"),
    ]
    donor = donor_values(model, points, OTHER)
    with intervening(model, [Intervention(at, patch(donor[at])) for at in points]):
        found = logits(model)
    torch.testing.assert_close(found, logits(model, OTHER))


def test_resampled_rows_are_of_another_emotion_and_follow_the_seed() -> None:
    values = torch.arange(6.0)[:, None, None].expand(6, 1, 2)
    emotions = ["joy", "joy", "fear", "fear", "anger", "anger"]
    rows = ["joy", "fear", "anger"] * 20
    drawn = resample(values, emotions, rows)(torch.zeros(60, 4, 2))[:, 0, 0].long()
    assert all(emotions[i] != row for i, row in zip(drawn.tolist(), rows, strict=True))
    assert len(set(drawn.tolist())) == 6
    again = resample(values, emotions, rows)(torch.zeros(60, 4, 2))[:, 0, 0].long()
    other = resample(values, emotions, rows, seed=1)(torch.zeros(60, 4, 2))[:, 0, 0].long()
    assert torch.equal(drawn, again) and not torch.equal(drawn, other)


def test_bad_input_is_one_sentence(tiny_model: Any) -> None:
    model = tiny_model("llama")
    at, mask = neurons(model, 0, [1])
    donor = donor_values(model, [at], OTHER)[at]
    for change, message in (
        (patch(donor[:, :7]), "has 7 tokens a text, this one 8"),
        (mean_by_position(donor[:, :7]), "equal length in tokens"),
        (group_mean(donor, "ab", "aba"), "made for 3 rows"),
        (resample(donor[:, :7], "ab", "ab"), "7 tokens a text, the pass 8"),
    ):
        with (
            pytest.raises(DataError, match=message),
            intervening(model, [Intervention(at, change, mask)]),
        ):
            logits(model)
    with pytest.raises(DataError, match="NaN"):
        patch(donor * float("nan"))
    with pytest.raises(DataError, match="runs \\[donor, pos, width\\]"):
        patch(donor[0])
    with pytest.raises(DataError, match="No text of the group 'c'"):
        group_mean(donor, "ab", "c")
    with pytest.raises(DataError, match="2 donors but 3 labels"):
        group_mean(donor, "abc", "a")
    with pytest.raises(DataError, match="All texts to draw from are of 'a'"):
        resample(donor, "aa", "a")
    with pytest.raises(DataError, match="No place was named"):
        donor_values(model, [], OTHER)
    with pytest.raises(UnknownNameError, match="layer"):
        donor_values(model, [WritePoint(9, "resid_post")], OTHER)
    assert set(INTERVENTIONS) >= {"patch", "mean_by_position", "group_mean", "resample"}
