"""Edges that end in single heads, or in their queries, keys and values: by hand and by sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.circuits.attribution.edge_scores import EdgeScores
from affectlens.circuits.attribution.edges import EdgeSettings, edge_scores
from affectlens.circuits.attribution.slopes import Against
from affectlens.circuits.interventions import (
    Edge,
    Intervention,
    Receiver,
    donor_values,
    heads,
    patching_edges,
    replace,
    zero,
)
from affectlens.circuits.interventions.head_receivers import WAYS, HeadReceiver
from affectlens.core.errors import DataError, ModelError, UnknownNameError
from tests.circuits.test_gradients import linear, llama, pairs_of, parts
from tests.circuits.test_interventions import IDS, logits

__all__ = ["linear", "llama"]


def margin(model: Any, task: Any) -> float:
    """Mean over texts of what an edge's score is a fall of."""
    with torch.no_grad():
        return float(sum(task.objective(model, "fear", t) for t in task.texts("fear"))) / len(task)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox"])
def test_heads_sum_to_the_attention_and_ways_to_the_head(tiny_model: Any, family: str) -> None:
    model = tiny_model(family)
    task, means = parts(model)
    given = (model, task, Against(means), ["fear"])
    whole = edge_scores(*given).values[0]
    by_head = edge_scores(*given, EdgeSettings(into="heads"))
    assert [r.name for r in by_head.receivers[:6]] == [
        *(f"head 0.{h}" for h in range(4)), "mlp 0", "head 1.0",
    ]  # fmt: skip
    ends = list(by_head.receivers)
    for v, receiver in enumerate(edge_scores(*given).receivers):
        own = [
            i
            for i, end in enumerate(ends)
            if end == receiver
            or (isinstance(end, HeadReceiver) and receiver == Receiver(end.layer, "attn"))
        ]
        sums = by_head.values[0][:, own].sum(1)
        torch.testing.assert_close(sums, whole[:, v], rtol=2e-3, atol=2e-6, equal_nan=True)
    if family == "gpt_neox":
        with pytest.raises(ModelError, match="by one map"):
            edge_scores(*given, EdgeSettings(into="qkv"))
        return
    by_way = edge_scores(*given, EdgeSettings(into="qkv"))
    for h, end in enumerate(ends):
        own = [
            i
            for i, one in enumerate(by_way.receivers)
            if one == end
            or (isinstance(one, HeadReceiver) and HeadReceiver(one.layer, one.head) == end)
        ]
        assert len(own) == (3 if isinstance(end, HeadReceiver) else 1)
        sums = by_way.values[0][:, own].sum(1)
        torch.testing.assert_close(
            sums, by_head.values[0][:, h], rtol=2e-3, atol=2e-6, equal_nan=True
        )


def test_scores_are_the_slopes_of_patches_by_hand(llama: Any) -> None:
    """The same edge patched a little either way: the fall of the margin for each step."""
    model, task, means = llama
    given = (model, task, Against(means), ["fear"])
    mean, (at, mask) = means.mean("heads").mean(0)[0], heads(model, 0, [1])
    by_head, by_way = (edge_scores(*given, EdgeSettings(into=into)) for into in ("heads", "qkv"))
    for found in (by_head, by_way):
        u = [one.name for one in found.senders].index("head 0.1")
        ends = [HeadReceiver(2, 3)] if found is by_head else [HeadReceiver(1, 2, w) for w in WAYS]
        for end in ends:
            seen = []
            for step in (0.05, -0.05):

                def moved(value: Tensor, step: float = step) -> Tensor:
                    return value + step * (mean - value)

                sender = Intervention(at, moved, mask)
                edge = Edge(sender, Receiver(end.layer, "attn"), (end.head,), end.by)
                with patching_edges(model, [edge]):
                    seen.append(margin(model, task))
            wanted = (seen[1] - seen[0]) / 0.1
            score = float(found.values[0, u, found.receivers.index(end)])
            assert score == pytest.approx(wanted, rel=0.03, abs=3e-5)
            assert abs(score) > 1e-5


def test_one_edge_of_a_linear_model_is_its_patch(linear: Any) -> None:
    model, task, means, _ = linear
    found = edge_scores(model, task, Against(means), ["fear"], EdgeSettings(into="heads"))
    at, mask = heads(model, 0, [1])
    sender = Intervention(at, replace(means.mean("heads").mean(0)[0]), mask)
    u = [one.name for one in found.senders].index("head 0.1")
    for head in range(4):
        with patching_edges(model, [Edge(sender, Receiver(1, "attn"), (head,))]):
            changed = margin(model, task)
        wanted = margin(model, task) - changed
        score = float(found.values[0, u, found.receivers.index(HeadReceiver(1, head))])
        assert score == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_corrected_scores_and_paths_sum_to_those_of_the_attention(llama: Any) -> None:
    model, task, means = llama
    task = task.first(1)
    pairs = Against(pairs={"fear": pairs_of(task, "fear")})
    for against, asked in ((Against(means), {"corrected": True}), (pairs, {"steps": 3})):
        given = (model, task, against, ["fear"])
        whole = edge_scores(*given, EdgeSettings(**asked))
        by_head = edge_scores(*given, EdgeSettings(**asked, into="heads"))
        for layer in range(3):
            own = [by_head.receivers.index(HeadReceiver(layer, h)) for h in range(4)]
            attn = whole.values[0, :, whole.receivers.index(Receiver(layer, "attn"))]
            sums = by_head.values[0][:, own].sum(1)
            torch.testing.assert_close(sums, attn, rtol=2e-3, atol=2e-6, equal_nan=True)
            assert layer == 0 or float(by_head.values[0][:, own].nan_to_num().std(1).max()) > 1e-6


def test_one_way_of_one_head_by_hand(tiny_model: Any) -> None:
    """Llama, head 0.1 into queries, keys or values of head 2.3, by hooks on the three maps."""
    model = tiny_model("llama")
    at, mask = heads(model, 0, [1])
    sender, layer = Intervention(at, zero(), mask), model.hf.model.layers[2]
    z = donor_values(model, [at], IDS)[at]
    sent = -(z * mask) @ model.anatomy.blocks[0].o_proj.weight.T
    streams: list[Tensor] = []
    handle = layer.input_layernorm.register_forward_pre_hook(lambda _m, a: streams.append(a[0]))
    logits(model)
    handle.remove()
    receiver, clean = Receiver(2, "attn"), logits(model)
    for way in WAYS:
        module = getattr(layer.self_attn, f"{way}_proj")
        with torch.no_grad():
            new = module(layer.input_layernorm(streams[0] + sent))
        seen: list[Tensor] = []
        swap = module.register_forward_hook(lambda _m, _a, _o, new=new: new)
        look = layer.self_attn.o_proj.register_forward_pre_hook(
            lambda _m, a, seen=seen: seen.append(a[0].clone())
        )
        logits(model)
        swap.remove()
        look.remove()

        def put(_m: Any, args: Any, seen: list[Tensor] = seen) -> Any:
            value = args[0].clone()
            value[..., 24:32] = seen[0][..., 24:32]
            return (value,)

        handle = layer.self_attn.o_proj.register_forward_pre_hook(put)
        wanted = logits(model)
        handle.remove()
        with patching_edges(model, [Edge(sender, receiver, (3,), way)]):
            found = logits(model)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(found, clean, atol=1e-4)
    with patching_edges(model, [Edge(sender, receiver, (3,), way) for way in WAYS]):
        together = logits(model)
    with patching_edges(model, [Edge(sender, receiver, (3,))]):
        torch.testing.assert_close(together, logits(model), rtol=1e-5, atol=1e-5)


def test_they_are_saved_and_shown(llama: Any, tmp_path: Any) -> None:
    model, task, means = llama
    found = edge_scores(model, task.first(1), Against(means), ["fear"], EdgeSettings(into="qkv"))
    found.save(tmp_path / "e.safetensors")
    again = EdgeScores.load(tmp_path / "e.safetensors")
    assert again.receivers == found.receivers
    torch.testing.assert_close(again.values, found.values, equal_nan=True)
    assert {row["receiver"] for row in found.table_rows(200)} >= {"head 1.0 q", "mlp 1"}


def test_bad_input_is_one_sentence(tiny_model: Any) -> None:
    model = tiny_model("llama")
    at, mask = heads(model, 0, [1])
    sender, receiver = Intervention(at, zero(), mask), Receiver(2, "attn")
    with pytest.raises(UnknownNameError, match="end of edges"):
        EdgeSettings(into="mlp")
    with pytest.raises(DataError, match="known of whole heads"):
        EdgeSettings(into="qkv", corrected=True)
    with pytest.raises(UnknownNameError, match="way of a head"):
        HeadReceiver(1, 0, "o")
    both = [Edge(sender, receiver, (1,)), Edge(sender, receiver, (1,), "q")]
    for edges, message in (
        (both, "by one of its ways"),
        ([Edge(sender, receiver, by="k")], "names the"),
    ):
        with pytest.raises(DataError, match=message), patching_edges(model, edges):
            pass
    neox = tiny_model("gpt_neox")
    one = [Edge(sender, receiver, (1,), "v")]
    with pytest.raises(ModelError, match="by one map"), patching_edges(neox, one):
        pass
