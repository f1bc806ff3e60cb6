"""Slots of requests and tokens, against the positions that steer Transformers models."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.core import DataError, MismatchError, UnknownNameError
from affectlens.core.places import WritePoint
from affectlens.serving.loaded_packs import Shelf
from affectlens.serving.request_slots import Ledger
from affectlens.serving.slot_tables import Capacity, Slots
from affectlens.steering import SteeringPack
from affectlens.steering.gates import Readout
from affectlens.steering.pack_places import places_of
from affectlens.steering.spec import POSITIONS
from tests.steering.oracle import random_pack, steered_at


@pytest.fixture
def pack(tiny_model: Any) -> SteeringPack:
    return random_pack(tiny_model("llama"))


def make(pack: SteeringPack, slots: int = 6, vectors: int = 3) -> tuple[Slots, Shelf, Ledger]:
    places = places_of(pack)
    tables = Slots(places, Capacity(slots, vectors, 64, pack.d_model), "cpu")
    shelf = Shelf(tables, None, places)
    shelf.load("demo", pack)
    return tables, shelf, Ledger(tables, None, shelf)


def test_every_token_of_random_chunks(pack: SteeringPack) -> None:
    """Chunked prefill, decoding, preemption: a token's slot depends on its position alone."""
    chance = random.Random(0)
    _, _, ledger = make(pack)
    requests = {}
    for i in range(6):
        prompt, total = chance.randint(1, 20), chance.randint(21, 40)
        spec = pack.resolve({"anger": i, "positions": chance.choice(POSITIONS), "mode": "residual"})
        requests[f"r{i}"] = (prompt, total, spec)
        if spec:
            ledger.add(f"r{i}", "demo", spec, prompt)
    computed = dict.fromkeys(requests, 0)
    steered = 0
    for _ in range(120):
        alive = [r for r in requests if computed[r] < requests[r][1]]
        if not alive:
            break
        batch = chance.sample(alive, chance.randint(1, len(alive)))
        if chance.random() < 0.1:
            computed[batch[0]] = 0  # preempted: everything is computed again
        counts = [chance.randint(1, min(7, requests[r][1] - computed[r])) for r in batch]
        marks = ledger.marks(batch, np.array([computed[r] for r in batch]), np.array(counts))
        rows = None if marks is None else marks.rows
        wanted = []
        for request, count in zip(batch, counts, strict=True):
            prompt, _, spec = requests[request]
            for t in range(computed[request], computed[request] + count):
                acts = bool(spec) and steered_at(str(spec.positions), t, prompt)
                wanted.append(request if acts else None)
            computed[request] += count
        assert (rows is None) == (not any(wanted))
        if rows is not None:
            assert rows.tolist() == [ledger.slot_of(r) if r else 0 for r in wanted]
            steered += 1
    assert steered > 20


def test_shares_follow_the_tokens_of_the_reply(pack: SteeringPack) -> None:
    """Whatever chunks they come in; where nothing is left of the steering there is no slot."""
    _, _, ledger = make(pack)
    text = "anger=1;mode=residual;positions={};schedule=0:0.5,2:0,6:1"
    specs = [pack.resolve(text.format(positions)) for positions in ("all", "generated")]
    for name, spec in zip("ab", specs, strict=True):
        ledger.add(name, "demo", spec, 4)
    ledger.add("c", "demo", pack.resolve("fear=1;mode=residual;positions=all"), 2)
    curve = [0.5] * 5 + [0.25, 0, 0.25, 0.5, 0.75, 1, 1]
    for first, count in ((0, 12), (0, 5), (5, 1), (6, 6)):
        marks = ledger.marks(list("acb"), np.array([first] * 3), np.array([count] * 3))
        assert marks is not None and marks.shares is not None and marks.shares.dtype == np.float32
        own = curve[first : first + count]
        np.testing.assert_allclose(marks.shares, [*own, *[1.0] * count, *own], atol=1e-6)
        slots = [ledger.slot_of(name) for name in "acb"]
        after = [int(first + i >= 4 and share > 0) for i, share in enumerate(own)]
        wanted = [slots[0] * int(share > 0) for share in own]
        wanted += [slots[1]] * count + [slots[2] * one for one in after]
        assert marks.rows.tolist() == wanted
    done = ledger.marks(list("ab"), np.array([10, 30]), np.array([1, 4]))
    assert done is not None and done.shares is None  # behind its last point nothing is left to do
    ledger.remove("a"), ledger.remove("b")
    alone = ledger.marks(["c"], np.array([0]), np.array([3]))
    assert alone is not None and alone.shares is None


def test_equal_requests_share_a_slot_and_free_it_last(pack: SteeringPack) -> None:
    tables, _, ledger = make(pack, slots=2)
    spec, other = pack.resolve("anger=1"), pack.resolve("fear=1")
    for name in ("a", "b", "c"):
        ledger.add(name, "demo", spec, 5)
    ledger.add("d", "demo", other, 5)
    step(ledger, "abcd")
    assert ledger.slots_in_use == 2
    assert ledger.slot_of("a") == ledger.slot_of("c") != ledger.slot_of("d")
    ledger.remove("a")
    ledger.remove("b")
    ledger.remove("never")
    assert ledger.slots_in_use == 2
    ledger.remove("c")
    assert ledger.slots_in_use == 1
    ledger.remove("d")
    assert ledger.slots_in_use == 0 and len(ledger) == 0
    assert not tables.shift.any()


def test_preempted_requests_lend_their_slots(pack: SteeringPack) -> None:
    """More requests have begun than run at once; whoever is in a step has its own meaning."""
    tables, _, ledger = make(pack, slots=2)
    for i, name in enumerate("abcde", start=1):
        ledger.add(name, "demo", pack.resolve({"anger": i, "mode": "residual"}), 5)
    for pair in ("ab", "bc", "de", "ae", "ca"):
        rows = step(ledger, pair)
        assert rows is not None and len(set(rows.tolist())) == 2
        for name, row in zip(pair, rows.tolist(), strict=True):
            wanted = ("abcde".index(name) + 1) * pack.recommended["residual"]["anger"]
            index = tables.places[WritePoint(2, "resid_post")]
            assert float(tables.shift[index, row, 0]) == pytest.approx(wanted)
        assert ledger.slots_in_use == 2
    with pytest.raises(DataError, match="All steering slots are taken"):
        step(ledger, "abc")


def step(ledger: Ledger, requests: str) -> Any:
    """One generated token of each request."""
    marks = ledger.marks(list(requests), np.full(len(requests), 5), np.ones(len(requests), int))
    return None if marks is None else marks.rows


def test_packs_come_and_go(pack: SteeringPack) -> None:
    tables, shelf, _ = make(pack, vectors=7)
    second = replace(pack, vectors={n: v * 2 for n, v in pack.vectors.items()})
    shelf.load("loud", second)
    assert shelf.names == ("demo", "loud")
    assert torch.equal(tables.vectors[:, 3:6], 2 * tables.vectors[:, :3])
    with pytest.raises(DataError, match="no room for pack third"):
        shelf.load("third", pack)
    with pytest.raises(DataError, match="loaded already"):
        shelf.load("loud", pack)
    shelf.unload("demo")
    assert not tables.vectors[:, :3].any() and tables.vectors[:, 3:6].any()
    shelf.load("third", pack)
    assert shelf["third"].first == 0
    with pytest.raises(UnknownNameError, match="'demo'"):
        shelf["demo"]


def test_packs_that_do_not_fit_are_refused(pack: SteeringPack, tiny_model: Any) -> None:
    places = places_of(pack)[:-1]
    tables = Slots(places, Capacity(2, 6, 8, pack.d_model), "cpu")
    with pytest.raises(DataError, match="reserve=all"):
        Shelf(tables, None, places).load("demo", pack)
    # Another stage of a pipeline may hold the rest.
    Shelf(tables, None, places_of(pack)).load("demo", pack)
    narrow = Slots(places_of(pack), Capacity(2, 6, 8, pack.d_model + 1), "cpu")
    with pytest.raises(MismatchError, match="width"):
        Shelf(narrow, None, places_of(pack)).load("demo", pack)


def test_a_gate_is_never_left_out(pack: SteeringPack) -> None:
    """A worker without probes does not steer as if the gate were open."""
    probes = Readout(("a", "b"), (-1,), torch.zeros(1, 2, pack.d_model), torch.zeros(1, 2))
    gated = replace(pack, gates=probes)
    _, _, ledger = make(gated)
    ledger.add("r", "demo", gated.resolve("anger=1;positions=all;gate=a>0.9"), 4)
    with pytest.raises(DataError, match=r"no probes, which the gate a>0.9 needs"):
        ledger.marks(["r"], np.array([0]), np.array([4]))
