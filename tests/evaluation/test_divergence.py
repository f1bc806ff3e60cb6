"""Nats per token from the unsteered model, beside plain passes one row at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from affectlens.core import DataError
from affectlens.evaluation.divergence import kl_to_unsteered
from tests.steering.oracle import random_pack, slow_logits

ROWS = [([5, 17, 33], [90, 12, 61, 4]), ([44, 7], [3]), ([101, 102, 103, 9], [8, 7]), ([150], [])]


def test_it_is_the_mean_over_reply_tokens_of_the_divergence(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = random_pack(model)
    specs = ["anger=2;unit=natural;mode=residual", "fear=1;unit=natural;mode=circuit", "none",
             "anger=1"]  # fmt: skip
    found = kl_to_unsteered(
        model, pack, specs, [p for p, _ in ROWS], [r for _, r in ROWS], max_tokens_per_batch=16
    )
    wanted: list[float] = []
    for (prompt, reply), (weights, mode) in zip(
        ROWS[:3], [({"anger": 2.0}, "residual"), ({"fear": 1.0}, "circuit"), ({}, "residual")],
        strict=True,
    ):  # fmt: skip
        where = pack.positions[mode]
        ids, n = [*prompt, *reply], len(prompt)
        steered, plain = (
            slow_logits(model, pack, ids, n, w, mode, where)[n - 1 : -1].double().log_softmax(-1)
            for w in (weights, {})
        )
        each = torch.nn.functional.kl_div(plain, steered, log_target=True, reduction="none").sum(-1)
        wanted.append(float(each.mean()))
    np.testing.assert_allclose(found[:3], wanted, rtol=1e-3, atol=1e-6)
    assert found[2] == pytest.approx(0, abs=1e-6) and np.isnan(found[3])
    assert found[0] > 0.01
    with pytest.raises(DataError, match="2 requests"):
        kl_to_unsteered(model, pack, specs[:2], [[1]], [[1]])
    with pack.steer(model, "anger=1"), pytest.raises(DataError):
        kl_to_unsteered(model, pack, ["none"], [[1]], [[1]])


def test_it_rises_with_the_dose(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = random_pack(model)
    doses = (0.1, 0.5, 1.0, 2.0)
    specs = [f"anger={d};unit=natural" for d in doses]
    found = kl_to_unsteered(model, pack, specs, [[5, 17]] * 4, [[33, 90, 12]] * 4)
    assert found.tolist() == sorted(found) and found[-1] > 10 * found[0] > 0
