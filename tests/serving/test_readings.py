"""Gates and readings of a server against those of the pack."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from affectlens.core.places import WritePoint
from affectlens.serving.coefficients import coefficients
from affectlens.serving.readings import Columns, Readings
from affectlens.serving.slot_tables import Capacity, Slots
from affectlens.steering import SteeringPack
from affectlens.steering.gates import Gate, Readout, gate_tables, probabilities
from affectlens.steering.pack_places import places_of, vectors_at
from tests.steering.oracle import random_pack

CLASSES = ("anger", "neutral", "joy")


def with_readout(pack: SteeringPack, seed: int, layers: tuple[int, ...]) -> SteeringPack:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(len(layers), 3, pack.d_model, generator=generator) * 0.2
    bias = torch.randn(len(layers), 3, generator=generator) * 0.1
    return replace(pack, readout=Readout(CLASSES, layers, weights, bias))


def test_gates_and_scores_of_two_packs(tiny_model: Any) -> None:
    packs = [with_readout(random_pack(tiny_model("llama")), seed, (1, 2)) for seed in (1, 2)]
    packs[1] = with_readout(packs[1], 2, (2,))
    slots = Slots(places_of(packs[0]), Capacity(6, 6, 30, packs[0].d_model), "cpu")
    readings = Readings((1, 2), 6, slots, 30)
    columns = [Columns(3 * i, CLASSES, pack.readout.layers) for i, pack in enumerate(packs)]  # type: ignore[union-attr]
    gates = [None, Gate("joy", True, 0.3), Gate("anger", False, 0.3), Gate("neutral", True, 0.35)]
    owners = [0, 0, 0, 1]
    for slot, (gate, owner) in enumerate(zip(gates, owners, strict=True)):
        readings.put(columns[owner], packs[owner].readout)  # type: ignore[arg-type]
        if slot:
            layer = packs[owner].readout.layers[0]  # type: ignore[union-attr]
            if gate is not None:
                readings.write(slot, columns[owner], gate, layer)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 4, (30,), generator=generator)
    hidden = {layer: torch.randn(30, packs[0].d_model, generator=generator) for layer in (1, 2)}
    slots.set_rows(rows)
    for layer, index in readings.layers.items():
        readings.decide_at(index, hidden[layer])
        readings.read_at(index, hidden[layer])
    assert slots.open is not None
    seen = set()
    for t, row in enumerate(rows.tolist()):
        pack, layer = packs[owners[row]], (1, 1, 1, 2)[row]
        wanted = True
        for table in gate_tables(pack.readout, [None, gates[row]], [0, 0]):  # type: ignore[arg-type]
            wanted = bool(table.open(hidden[layer][t][None, None], torch.tensor([1]))[0, 0])
        assert bool(slots.open[t]) == wanted
        seen.add((row, wanted))
        for name, i in (("a", 0), ("b", 1)):
            readout = packs[i].readout
            assert readout is not None, name
            scores = readings.scores[readings.layers[2], t, 3 * i : 3 * i + 3]
            torch.testing.assert_close(
                scores.softmax(-1),
                probabilities(hidden[2][t], readout.weights[-1], readout.bias[-1]),
            )
    assert len(seen) == 7  # every gate was open for some tokens and shut for others
    readings.clear(1)
    slots.set_rows(rows)
    readings.decide_at(0, hidden[1])
    assert bool(slots.open[rows == 1].all()) and not bool(slots.open[rows == 2].all())


def test_compiled_readings_are_the_same(tiny_model: Any) -> None:
    pack = with_readout(random_pack(tiny_model("llama")), 1, (1,))
    slots = Slots(places_of(pack), Capacity(4, 3, 20, pack.d_model, recorded=True), "cpu")
    readings = Readings((1,), 3, slots, 20)
    columns = Columns(0, CLASSES, (1,))
    readings.put(columns, pack.readout)  # type: ignore[arg-type]
    slots.shift[:, 2] = 1.0
    slots.put_vectors(0, torch.ones(len(slots.places), 3, pack.d_model))

    def step(hidden: torch.Tensor) -> torch.Tensor:
        readings.decide_at(0, hidden)
        hidden = slots.apply_at(0, hidden, gated=True)
        readings.read_at(0, hidden)
        return hidden

    compiled = torch.compile(step, backend="aot_eager", dynamic=True)
    for seed in range(3):
        hidden = torch.randn(8 + seed, pack.d_model, generator=torch.Generator().manual_seed(seed))
        readings.write(2, columns, Gate("joy", bool(seed % 2), 0.33), 1)
        rows = torch.arange(8 + seed) % 3
        slots.set_rows(rows)
        got = compiled(hidden), slots.open.clone(), readings.scores.clone()  # type: ignore[union-attr]
        slots.set_rows(rows)
        wanted = step(hidden), slots.open.clone(), readings.scores.clone()  # type: ignore[union-attr]
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b)


def test_an_open_gate_changes_no_bit_of_what_is_steered(tiny_model: Any) -> None:
    pack = with_readout(random_pack(tiny_model("llama")), 1, (0,))
    places = places_of(pack)
    slots = Slots(places, Capacity(2, 3, 20, pack.d_model), "cpu")
    slots.put_vectors(0, vectors_at(pack, places))
    readings = Readings((0,), 3, slots, 20)
    columns = Columns(0, CLASSES, (0,))
    readings.put(columns, pack.readout)  # type: ignore[arg-type]
    spec = pack.resolve("anger=1,fear=-0.5;mode=residual")
    slots.write(1, 0, coefficients(pack, spec, places, vectors_at(pack, places)))
    place = slots.places[WritePoint(2, "resid_post")]
    hidden = torch.randn(20, pack.d_model, generator=torch.Generator().manual_seed(0))
    found = []
    for gate in (None, Gate("joy", True, 1e-6), Gate("joy", False, 1e-6)):
        if gate is not None:
            readings.write(1, columns, gate, 0)
        slots.set_rows(torch.ones(20, dtype=torch.long))
        readings.decide_at(0, hidden)
        found.append(slots.apply_at(place, hidden, gated=True))
    assert torch.equal(found[0], found[1]) and torch.equal(found[2], hidden)
    assert not torch.allclose(found[0], hidden)
