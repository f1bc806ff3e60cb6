"""Probes of a server: gates decided and emotions read while a step runs, in fixed buffers.

The probes of all packs that read after one block are stacked, so one product serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.serving.slot_tables import Slots
from affectlens.steering.gates import Gate, Readout


@dataclass(frozen=True)
class Columns:
    """Where a pack's classes lie among the stacked ones.

    Attributes:
        first: First column.
        classes: Their names.
        layers: Blocks that requests are read after.
    """

    first: int
    classes: tuple[str, ...]
    layers: tuple[int, ...]


class Readings(nn.Module):
    """Stacked probes of one worker.

    Args:
        layers: Blocks after which gates are decided or requests read; `EMBEDDINGS` comes before.
        classes: Columns to reserve.
        slots: The slots whose requests may have gates.
        tokens: Most tokens of a step.
    """

    def __init__(self, layers: tuple[int, ...], classes: int, slots: Slots, tokens: int) -> None:
        super().__init__()
        self.layers = {layer: i for i, layer in enumerate(layers)}
        self.slots = slots
        rows, device = slots.capacity.slots + 1, slots.rows.device
        width = slots.capacity.d_model
        self.weights = torch.zeros(len(layers), classes, width, device=device)
        self.bias = torch.zeros(len(layers), classes, device=device)
        self.scores = torch.zeros(len(layers), tokens, classes, device=device)
        # Per slot: which layer decides (-1: none), which columns belong to its pack, and the gate.
        self.decider = torch.full((rows,), -1, dtype=torch.long, device=device)
        self.foreign = torch.zeros(rows, classes, device=device)
        self.asked = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.sign = torch.ones(rows, device=device)
        self.threshold = torch.zeros(rows, device=device)
        self.wanted = False  # whether somebody reads this step; compiled code reads always
        slots.allow_gates()

    def put(self, columns: Columns, readout: Readout) -> None:
        """Give a pack's probes their columns."""
        where = slice(columns.first, columns.first + len(columns.classes))
        for i, layer in enumerate(readout.layers):
            self.weights[self.layers[layer], where] = readout.weights[i].to(self.weights.device)
            self.bias[self.layers[layer], where] = readout.bias[i].to(self.bias.device)

    def write(self, slot: int, columns: Columns, gate: Gate, layer: int) -> None:
        """Set the gate of a slot.

        Args:
            slot: Which.
            columns: Of its pack.
            gate: The gate.
            layer: Block after which it is decided.
        """
        self.clear(slot)
        self.foreign[slot] = -torch.inf
        self.foreign[slot, columns.first : columns.first + len(columns.classes)] = 0
        self.asked[slot] = columns.first + columns.classes.index(gate.label)
        self.sign[slot] = 1.0 if gate.above else -1.0
        self.threshold[slot] = gate.threshold
        self.decider[slot] = self.layers[layer]
        self.slots.gating.add(slot)

    def clear(self, slot: int) -> None:
        """Leave a slot without a gate."""
        if slot in self.slots.gating:
            self.decider[slot] = -1
            self.slots.gating.remove(slot)

    def decide_at(self, index: int, hidden: Float[Tensor, "token d"]) -> None:
        """Open or shut the gates that this block decides, before its own steering.

        Args:
            index: Number of the layer.
            hidden: Residual stream after the block.
        """
        open_ = self.slots.open
        if open_ is None or not (self.slots.always or self.slots.gating):
            return
        n = hidden.shape[0]
        rows = self.slots.rows[:n]
        shares = (self._scores(index, hidden) + self.foreign[rows]).softmax(-1)
        excess = shares.gather(-1, self.asked[rows])[:, 0] - self.threshold[rows]
        may = (self.sign[rows] * excess > 0).to(open_.dtype)
        open_[:n] = torch.where(self.decider[rows] == index, may, open_[:n])

    def read_at(self, index: int, hidden: Float[Tensor, "token d"]) -> None:
        """Keep the scores of every token of the step, after this block's steering."""
        self.scores[index, : hidden.shape[0]] = self._scores(index, hidden)

    def _scores(self, index: int, hidden: Tensor) -> Tensor:
        return hidden.float() @ self.weights[index].T + self.bias[index]
