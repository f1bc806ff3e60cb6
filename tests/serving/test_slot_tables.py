"""Slots of a server against the tables that steer Transformers models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from affectlens.core import DataError
from affectlens.serving.coefficients import coefficients
from affectlens.serving.slot_tables import Capacity, Slots
from affectlens.steering import SteeringPack
from affectlens.steering.pack_places import places_of, vectors_at
from tests.steering.oracle import random_pack

REQUESTS = (
    "anger=1;mode=residual",
    "anger=0.5,fear=-2,happiness=0.1;mode=circuit;unit=natural",
    "fear=3;mode=residual;unit=rms",
    "happiness=-40;mode=circuit;unit=raw",
    "anger=1,happiness=0.5;mode=residual;operator=project_out",
    "fear=2;mode=circuit;operator=clamp;unit=natural",
    "fear=-1,anger=2,happiness=1;mode=residual;operator=clamp;unit=rms",
    "happiness=1,fear=1;mode=circuit;operator=add_keep_norm",
)


@pytest.fixture
def pack(tiny_model: Any) -> SteeringPack:
    return random_pack(tiny_model("llama"))


def slots_for(pack: SteeringPack, first: int = 0, **changes: Any) -> Slots:
    places = places_of(pack)
    sizes = {"slots": 8, "vectors": first + 3, "tokens": 40, "d_model": pack.d_model, **changes}
    slots = Slots(places, Capacity(**sizes), "cpu")
    slots.put_vectors(first, vectors_at(pack, places))
    return slots


def write(slots: Slots, pack: SteeringPack, slot: int, text: str, first: int = 0) -> None:
    places = tuple(slots.places)
    spec = pack.resolve(text)
    slots.write(slot, first, coefficients(pack, spec, places, vectors_at(pack, places)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("first", [0, 2])
def test_every_request_at_every_place_as_in_transformers(
    pack: SteeringPack, dtype: torch.dtype, first: int
) -> None:
    slots = slots_for(pack, first)
    if first:  # another pack's columns must not leak in
        slots.vectors[:, :first] = 7.0
    for slot, text in enumerate(REQUESTS, start=1):
        write(slots, pack, slot, text, first)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, len(REQUESTS) + 1, (40,), generator=generator)
    slots.set_rows(rows)
    table = pack.table(list(REQUESTS))
    for place, index in slots.places.items():
        hidden = (torch.randn(40, pack.d_model, generator=generator) * 2).to(dtype)
        got = slots.apply_at(index, hidden)
        site = table.sites[place]
        wanted = site.apply(hidden[:, None], rows, None)[:, 0]
        assert got.dtype == dtype
        tolerance = 2e-5 if dtype == torch.float32 else 0.02
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)
        still = rows == 0
        bits = torch.int16 if dtype == torch.bfloat16 else torch.int32
        assert torch.equal(got[still].view(bits), hidden[still].view(bits))
        assert not torch.allclose(got[~still].float(), hidden[~still].float())


@pytest.mark.parametrize("recorded", [False, True])
def test_every_request_goes_its_share_of_the_way(pack: SteeringPack, recorded: bool) -> None:
    """Nothing and all of it bit for bit, and a later step without shares is whole again."""
    slots = slots_for(pack, recorded=recorded)
    for slot, text in enumerate(REQUESTS, start=1):
        write(slots, pack, slot, text)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(1, len(REQUESTS) + 1, (40,), generator=generator)
    shares = torch.rand(40, generator=generator)
    shares[:8] = 1.0
    table = pack.table(list(REQUESTS))
    for place, index in slots.places.items():
        hidden = torch.randn(40, pack.d_model, generator=generator) * 2
        slots.set_rows(rows)
        whole = slots.apply_at(index, hidden)
        slots.set_rows(rows, shares)
        got = slots.apply_at(index, hidden)
        wanted = table.sites[place].apply(hidden[:, None], rows, None, shares[:, None])[:, 0]
        torch.testing.assert_close(got, wanted, rtol=2e-5, atol=2e-5)
        assert torch.equal(got[:8], whole[:8]) and not torch.allclose(got[8:], whole[8:])
        slots.set_rows(rows)
        assert torch.equal(slots.apply_at(index, hidden), whole)


@pytest.mark.parametrize("text", [REQUESTS[0], REQUESTS[1]])
def test_sums_looked_up_once_go_their_share_of_the_way(pack: SteeringPack, text: str) -> None:
    """Where nothing projects or keeps norms, eager code takes another way."""
    slots = slots_for(pack)
    write(slots, pack, 1, text)
    shares = torch.linspace(0.1, 1, 10)
    table = pack.table([text])
    rows = torch.ones(10, dtype=torch.long)
    slots.set_rows(rows, shares)
    for place, index in slots.places.items():
        if place not in table.sites:
            continue
        hidden = torch.randn(10, pack.d_model)
        wanted = table.sites[place].apply(hidden[:, None], rows, None, shares[:, None])[:, 0]
        torch.testing.assert_close(slots.apply_at(index, hidden), wanted, rtol=2e-5, atol=2e-5)


def test_a_slot_written_again_forgets_what_it_was(pack: SteeringPack) -> None:
    slots = slots_for(pack)
    fresh = slots_for(pack)
    for text in REQUESTS:
        write(slots, pack, 3, text)
    write(slots, pack, 3, REQUESTS[0])
    write(fresh, pack, 3, REQUESTS[0])
    for name in ("shift", "scale", "keeps"):
        assert torch.equal(getattr(slots, name), getattr(fresh, name))
    slots.clear(3)
    assert not slots.shift.any() and not slots.projecting and not slots.turning


def test_compiled_once_for_all_requests_and_lengths(pack: SteeringPack) -> None:
    """What changes between steps is data: one graph, the same numbers as eager."""
    slots = slots_for(pack, recorded=True)
    graphs = 0

    def backend(graph: Any, _inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    run = torch.compile(lambda h: slots.apply_at(0, h), backend=backend, dynamic=True)
    addresses = [t.data_ptr() for t in (slots.shift, slots.rows, slots.vectors)]
    generator = torch.Generator().manual_seed(0)
    for step, text in enumerate(REQUESTS):
        write(slots, pack, 1 + step % 3, text)
        hidden = torch.randn(5 + 3 * step, pack.d_model, generator=generator)
        shares = torch.rand(len(hidden), generator=generator) if step % 2 else None
        slots.set_rows(torch.randint(0, 4, (len(hidden),), generator=generator), shares)
        got, wanted = run(hidden), slots.apply_at(0, hidden)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert graphs == 1
    assert addresses == [t.data_ptr() for t in (slots.shift, slots.rows, slots.vectors)]


def test_what_was_not_reserved_is_refused(pack: SteeringPack) -> None:
    slots = slots_for(pack, projects=False, turns=False)
    write(slots, pack, 1, "anger=1")
    with pytest.raises(DataError, match="without operators that project"):
        write(slots, pack, 1, "anger=1;operator=project_out")
    with pytest.raises(DataError, match="without operators that keep norms"):
        write(slots, pack, 1, "anger=1;operator=add_keep_norm")
    with pytest.raises(DataError, match="unit=natural"):
        write(slots, replace(pack, rms=None), 1, "anger=1;unit=rms")
