"""Writers of a token: sums against the stream, single units against taking them out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from affectlens.core import DataError
from affectlens.inspection import Said, inspect_reply, lenses_of, writers_at
from tests.circuits.test_circuit import random_circuit
from tests.conftest import FAMILIES
from tests.steering.oracle import EMOTIONS, random_pack

PROMPT, REPLY = [5, 17, 33, 90, 12, 61], [44, 7, 101, 9]
AT = 2
SPEC = "anger=0.8;unit=natural;mode=circuit"


def stream(model: Any, ids: list[int], layer: int) -> torch.Tensor:
    """What a plain pass holds after a block, at the last token."""
    seen: list[torch.Tensor] = []
    handle = model.anatomy.blocks[layer].block.register_forward_hook(
        lambda _m, _a, out: seen.append((out[0] if isinstance(out, tuple) else out)[0, -1])
    )
    try:
        with torch.no_grad():
            model.hf(input_ids=torch.tensor([ids]), use_cache=False)
    finally:
        handle.remove()
    return seen[0].double()


@pytest.mark.parametrize("family", FAMILIES)
def test_shares_sum_to_the_projection_of_a_plain_pass(tiny_model: Any, family: str) -> None:
    model = tiny_model(family)
    pack = random_pack(model)
    lens = lenses_of(pack)[0]
    for emotion in EMOTIONS[:2]:
        found = writers_at(Said(model, pack, SPEC, PROMPT, REPLY), AT, emotion, lens, top=10**6)
        vector = pack.vectors["residual.resid_post"][EMOTIONS.index(emotion), 1].double()
        h = stream(model, [*PROMPT, *REPLY[:AT]], 2)
        assert found.layer == 2
        assert found.total[1] == pytest.approx(float(h @ vector / vector.square().sum()), rel=1e-3)
        parts = (found.words, found.units, found.biases, found.steering)
        for row in (0, 1):
            assert sum(part[row] for part in parts) == pytest.approx(found.total[row], abs=1e-4)
        size = max(abs(part[1]) for part in (*parts, found.total))
        assert abs(found.steering[1]) < 1e-3 * size  # nobody steers there
        assert len(found.largest) == 3 * (model.anatomy.n_heads + model.anatomy.d_mlp)
        for row in ("steered", "unsteered"):
            total = sum(getattr(one, row) for one in found.largest)
            assert total == pytest.approx(found.units[row == "unsteered"], abs=1e-3)
        sizes = [abs(one.steered) for one in found.largest]
        assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "opt"])
def test_what_steering_adds_is_what_the_pack_holds(tiny_model: Any, family: str) -> None:
    """Without a norm between sublayer and stream it is the sum of what is written."""
    model = tiny_model(family)
    pack = random_pack(model)
    found = writers_at(Said(model, pack, SPEC, PROMPT, REPLY), AT, "fear", lenses_of(pack)[0])
    vector = pack.vectors["residual.resid_post"][1, 1].double()
    added = sum(
        pack.vectors[f"circuit.{point}"][0].double().sum(0)
        for point in ("o_proj_out", "down_proj_out")
    )
    wanted = 0.8 * float(added @ vector / vector.square().sum())
    assert found.steering[0] == pytest.approx(wanted, abs=1e-3)


WITHOUT_NORM = [family for family in FAMILIES if family not in ("gemma3", "olmo2")]


@pytest.mark.parametrize("family", WITHOUT_NORM)
def test_a_unit_of_the_last_block_is_what_taking_it_out_changes(
    tiny_model: Any, family: str
) -> None:
    """In the block that is read nothing comes after a neuron where no norm does."""
    model = tiny_model(family)
    pack, layer = random_pack(model), 2
    found = writers_at(
        Said(model, pack, "none", PROMPT, REPLY), AT, "anger", lenses_of(pack)[0], top=10**6
    )
    part = model.anatomy.blocks[layer]
    assert part.mlp_post_norm is None
    vector = pack.vectors["residual.resid_post"][0, 1].double()
    ids = [*PROMPT, *REPLY[:AT]]
    whole = stream(model, ids, layer)
    amounts = {(one.part, one.layer, one.index): one.unsteered for one in found.largest}
    for neuron in (0, 7, 63):

        def out(_m: Any, args: Any, n: int = neuron) -> Any:
            x = args[0].clone()
            x[..., n] = 0
            return (x, *args[1:])

        handle = part.down_proj.register_forward_pre_hook(out)
        try:
            less = stream(model, ids, layer)
        finally:
            handle.remove()
        change = float((whole - less) @ vector / vector.square().sum())
        assert amounts["neuron", layer, neuron] == pytest.approx(change, abs=2e-4)


def test_of_a_circuit_only_its_units_are_listed(tiny_model: Any) -> None:
    model = tiny_model()
    pack, circuit = random_pack(model), random_circuit(model)
    said = Said(model, pack, SPEC, PROMPT, REPLY)
    lens = lenses_of(pack)[0]
    emotion = next(e for e in circuit.emotions if e in pack.emotions)
    all_ = writers_at(said, AT, emotion, lens, top=10**6)
    mine = writers_at(said, AT, emotion, lens, circuit=circuit, top=10**6)
    names = {f"head {u.layer}.{u.index}" for u in circuit.units(emotion, "heads")}
    names |= {f"neuron {u.layer}.{u.index}" for u in circuit.units(emotion, "neurons")}
    assert {one.name for one in mine.largest} == names
    by_name = {one.name: one for one in all_.largest}
    assert all(by_name[one.name] == one for one in mine.largest)
    assert mine.units_circuit is not None
    assert mine.units_circuit[0] == pytest.approx(sum(by_name[n].steered for n in names), abs=1e-5)
    assert mine.units == all_.units


def test_what_cannot_be_told_is_said(tiny_model: Any) -> None:
    model = tiny_model()
    pack = random_pack(model)
    said, lens = Said(model, pack, SPEC, PROMPT, REPLY), lenses_of(pack)[0]
    with pytest.raises(DataError, match="no direction of joy after block 2"):
        writers_at(said, AT, "joy", lens)
    with pytest.raises(DataError, match="no direction of happiness after block 0"):
        writers_at(said, AT, "happiness", lens, layer=0)
    with pytest.raises(DataError, match="no direction of anger after block 1"):
        writers_at(said, AT, "anger", lens, layer=1)
    with pytest.raises(DataError, match="there is no token 9"):
        writers_at(said, 9, "anger", lens)
    # Nothing is read but what is asked: an inspection beside it says the same of the stream.
    assert inspect_reply(said).kl.shape == (4,)
