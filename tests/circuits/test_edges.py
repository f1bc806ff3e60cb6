"""Edges against a second forward pass written out by hand, and against what they must add up to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.circuits.interventions import (
    Edge,
    Intervention,
    Receiver,
    donor_values,
    heads,
    intervening,
    neurons,
    patch,
    patching_edges,
    receivers,
    zero,
)
from affectlens.circuits.interventions.edges import order
from affectlens.core.errors import DataError, UnknownNameError
from affectlens.core.places import WritePoint
from affectlens.models.anatomy.transformer_lens import unwrap
from tests.circuits.test_interventions import IDS, logits

FAMILIES = ("llama", "gemma3", "gpt_neox", "olmo2", "opt")
"""Norms before, after and on both sides of a sublayer, parallel blocks, two axes as one."""


def states(model: Any) -> Tensor:
    """What the final norm reads."""
    kept: list[Tensor] = []
    handle = model.anatomy.final_norm.register_forward_pre_hook(
        lambda _m, args: kept.append(args[0].clone())
    )
    logits(model)
    handle.remove()
    return kept[0]


def all_edges(model: Any, sender: Intervention) -> list[Edge]:
    after = order(model, sender.at)
    return [Edge(sender, one) for one in receivers(model) if order(model, one) > after]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_edges_of_a_sender_are_the_sender(tiny_model: Any, family: str) -> None:
    """If everyone reads the change, it is as if it had been written."""
    model = tiny_model(family)
    last = Receiver(model.n_layers, "final")
    for at, mask in (
        heads(model, 0, [1]),
        neurons(model, 0, [3, 5]),
        (WritePoint(1, "o_proj_out"), None),
    ):
        sender = Intervention(at, zero(), mask)
        edges = all_edges(model, sender)
        assert edges[-1].receiver == last
        with intervening(model, [sender]):
            wanted = logits(model)
        with patching_edges(model, edges):
            found = logits(model)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(found, logits(model), atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_into_all_heads_is_into_the_attention(tiny_model: Any, family: str) -> None:
    model = tiny_model(family)
    at, mask = heads(model, 0, [1])
    sender, receiver = Intervention(at, zero(), mask), Receiver(2, "attn")
    with patching_edges(model, [Edge(sender, receiver)]):
        wanted = logits(model)
    every = tuple(range(model.anatomy.blocks[2].n_heads))
    with patching_edges(model, [Edge(sender, receiver, every)]):
        torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-5)
    with patching_edges(model, [Edge(sender, receiver, (2,))]):
        one = logits(model)
    assert not torch.allclose(one, wanted, atol=1e-4)
    assert not torch.allclose(one, logits(model), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edge_into_the_unembedding_is_what_the_sender_writes(
    tiny_model: Any, family: str
) -> None:
    """Only the final state moves, and by the difference of what the sublayer adds."""
    model = tiny_model(family)
    part = model.anatomy.blocks[1]
    at, mask = heads(model, 1, [0])
    donor = donor_values(model, [at], IDS.flip(0))[at]
    before = states(model)
    with patching_edges(model, [Edge(Intervention(at, patch(donor), mask), Receiver(3, "final"))]):
        after = states_read(model)
    raw = donor_values(model, [at], IDS)[at]
    changed = torch.where(mask, donor, raw)
    norm = part.attn_post_norm or torch.nn.Identity()
    wanted = norm(unwrap(part.o_proj)(changed)) - norm(unwrap(part.o_proj)(raw))
    torch.testing.assert_close(after - before, wanted, rtol=1e-4, atol=1e-4)


def states_read(model: Any) -> Tensor:
    """The same, as it arrives behind the hooks of an edge."""
    kept: list[Tensor] = []
    norm = model.anatomy.final_norm
    own = norm.forward

    def forward(value: Tensor) -> Tensor:
        kept.append(value.clone())
        return own(value)

    norm.forward = forward
    try:
        logits(model)
    finally:
        del norm.forward
    return kept[0]


def test_a_path_by_hand(tiny_model: Any) -> None:
    """Llama, head 0.1 into the MLP of block 1: the block's own arithmetic, written out."""
    model = tiny_model("llama")
    at, mask = heads(model, 0, [1])
    part = model.anatomy.blocks[1]
    z = donor_values(model, [at], IDS)[at]
    sent = -(z * mask) @ model.anatomy.blocks[0].o_proj.weight.T
    with torch.no_grad():
        block = model.hf.model.layers[1]
        given: list[Tensor] = []
        handle = part.mid_reader.register_forward_pre_hook(lambda _m, a: given.append(a[0]))
        logits(model)
        handle.remove()
        mlp = block.mlp(block.post_attention_layernorm(given[0] + sent))
    handle = block.mlp.register_forward_hook(lambda *_: mlp)
    wanted = logits(model)
    handle.remove()
    with patching_edges(model, [Edge(Intervention(at, zero(), mask), Receiver(1, "mlp"))]):
        torch.testing.assert_close(logits(model), wanted, rtol=1e-5, atol=1e-5)


def test_bad_input_is_one_sentence(tiny_model: Any) -> None:
    model = tiny_model("llama")
    at, mask = heads(model, 1, [1])
    sender = Intervention(at, zero(), mask)
    for edge, message in (
        (Edge(sender, Receiver(1, "attn")), "runs backwards"),
        (Edge(sender, Receiver(0, "mlp")), "runs backwards"),
        (Edge(sender, Receiver(7, "mlp")), "no receiver mlp at layer 7"),
        (Edge(sender, Receiver(2, "mlp"), (1,)), "ends in an attention"),
        (Edge(sender, Receiver(2, "attn"), ()), "names at least one"),
        (Edge(Intervention(WritePoint(1, "resid_post"), zero()), Receiver(2, "mlp")), "no sender"),
    ):
        with pytest.raises(DataError, match=message), patching_edges(model, [edge]):
            pass
    ninth = Edge(sender, Receiver(2, "attn"), (9,))
    with pytest.raises(UnknownNameError, match="head of layer 2"), patching_edges(model, [ninth]):
        pass
    with pytest.raises(UnknownNameError, match="receiver"):
        Receiver(1, "q")
    with pytest.raises(DataError, match="at least one"), patching_edges(model, []):
        pass
    whole, single = Edge(sender, Receiver(2, "attn")), Edge(sender, Receiver(2, "attn"), (1,))
    with pytest.raises(DataError, match="told apart"), patching_edges(model, [whole, single]):
        pass
    mlp = Edge(sender, Receiver(1, "mlp"))
    neox = tiny_model("gpt_neox")
    with pytest.raises(DataError, match="backwards"), patching_edges(neox, [mlp]):
        pass
