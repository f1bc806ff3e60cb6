"""The same interventions through TransformerLens and nnsight give the same logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from affectlens.activations.forward.engines.nnsight import NnsightEngine
from affectlens.activations.forward.engines.transformer_lens import TransformerLensEngine
from affectlens.circuits.interventions import (
    Intervention,
    add,
    donor_values,
    heads,
    intervene_in_trace,
    intervening,
    neurons,
    patch,
    transformer_lens_hooks,
    zero,
)
from affectlens.core.errors import DataError
from affectlens.core.places import WritePoint
from tests.circuits.test_interventions import IDS, logits


def made(model: Any) -> list[Intervention]:
    """At every kind of place, two at one of them, out of order."""
    at, mask = heads(model, 1, [2])
    where, chosen = neurons(model, 1, [3, 10])
    first = torch.tensor([True, False])[:, None, None]
    donor = donor_values(model, [at], IDS.flip(0))[at]
    return [
        Intervention(WritePoint(2, "resid_post"), add(torch.ones(model.d_model)), first),
        Intervention(at, patch(donor), mask),
        Intervention(where, zero(), chosen & ~first),
        Intervention(WritePoint(0, "o_proj_out"), add(torch.ones(model.d_model))),
        Intervention(WritePoint(0, "down_proj_out"), zero(), first),
        Intervention(WritePoint(2, "resid_pre"), add(-torch.ones(model.d_model))),
        Intervention(WritePoint(2, "resid_post"), add(torch.ones(model.d_model))),
    ]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_transformer_lens_makes_the_same(tiny_model: Any, family: str) -> None:
    model = tiny_model(family)
    given = made(model)
    with intervening(model, given):
        wanted = logits(model)
    bridge = TransformerLensEngine(model).bridge
    with torch.no_grad():
        found = bridge.run_with_hooks(IDS, fwd_hooks=transformer_lens_hooks(given))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_nnsight_makes_the_same(tiny_model: Any, family: str) -> None:
    import nnsight

    model = tiny_model(family)
    given = made(model)
    with intervening(model, given):
        wanted = logits(model)
    root = NnsightEngine(model).root
    with torch.no_grad(), root.trace(input_ids=IDS, use_cache=False):
        kept = nnsight.save([])
        intervene_in_trace(root, model, given, IDS.shape)
        kept.append(root.output.logits)
    torch.testing.assert_close(kept[0], wanted, rtol=1e-5, atol=1e-5)


def test_nothing_to_do_is_refused(tiny_model: Any) -> None:
    with pytest.raises(DataError, match="at least one"):
        transformer_lens_hooks([])
    with pytest.raises(DataError, match="at least one"):
        intervene_in_trace(None, tiny_model("llama"), [], IDS.shape)
