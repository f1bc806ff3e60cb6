"""Conditions and readings: probes that travel in a pack, and steering that waits for one.

A gate such as ``sadness>0.4`` steers a token only where a probe of the pack gives that emotion more
(or less, with ``<``) than that probability. The probe reads the residual stream before the first
place that the request steers, so the decision holds for all of them, and a gate that is always open
is no gate at all. Of several such probes the last one decides. A request that steers earlier than
the pack has probes is refused. A circuit that begins in block 0 leaves only the embeddings to read:
there the word alone decides. The decision depends on the token and what came before it, never on a
batch or a chunk, so it is the same with a cache, a prefix cache and any chunking. (Idea:
conditional steering, arXiv 2409.05907; there the prompt decides, here each token.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.core import DataError, Site, WritePoint
from affectlens.core.errors import unknown

EMBEDDINGS = -1
"""Layer of a probe of the embeddings: what comes before block 0."""

_GATE = re.compile(r"\s*(?P<label>[^<>]*[^<>\s])\s*(?P<side>[<>])\s*(?P<threshold>[^<>\s]+)\s*")


@dataclass(frozen=True)
class Gate:
    """Steer only where a probe says so.

    Attributes:
        label: Class of the pack's probe.
        above: Whether its probability must be above the threshold, or below.
        threshold: In (0, 1).
    """

    label: str
    above: bool
    threshold: float

    def __str__(self) -> str:
        return f"{self.label}{'>' if self.above else '<'}{self.threshold!r}"

    @classmethod
    def parse(cls, value: Any) -> Gate | None:
        """Read ``"sadness>0.4"``; None and gates are given back.

        Raises:
            DataError: If it cannot be read.
        """
        if value is None or isinstance(value, Gate):
            return value
        match = _GATE.fullmatch(value) if isinstance(value, str) else None
        try:
            threshold = float(match["threshold"]) if match else math.nan
        except ValueError:
            threshold = math.nan
        if match is None or not 0 < threshold < 1:
            raise DataError(
                f"Cannot read the gate {value!r}; write an emotion, > or <, and a probability "
                "between 0 and 1, for example sadness>0.4."
            )
        return cls(match["label"], match["side"] == ">", threshold)


@dataclass(frozen=True, eq=False)
class Readout:
    """Linear probes of the residual stream after chosen blocks.

    Attributes:
        classes: What they tell apart, in the order of their outputs.
        layers: Blocks they read, ascending; those of gates may begin with `EMBEDDINGS`.
        weights: Of raw activations (standardisation folded in), float32.
        bias: The same.
    """

    classes: tuple[str, ...]
    layers: tuple[int, ...]
    weights: Float[Tensor, "layer label d_model"]
    bias: Float[Tensor, "layer label"]

    def __post_init__(self) -> None:
        for name in ("weights", "bias"):
            object.__setattr__(self, name, getattr(self, name).detach().float().cpu())

    def check(self, n_layers: int, d_model: int, first: int = 0) -> None:
        """Hold the parts against each other and against a model.

        Args:
            n_layers: Of the model.
            d_model: Of the model.
            first: Lowest layer that may be read.

        Raises:
            DataError: Naming what does not fit.
        """
        names = all(isinstance(name, str) and name for name in self.classes)
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes) or not names:
            raise DataError(f"A probe needs at least two classes, not {list(self.classes)}.")
        inside = all(isinstance(n, int) and first <= n < n_layers for n in self.layers)
        if not (self.layers and inside and list(self.layers) == sorted(set(self.layers))):
            raise DataError(
                f"Layers of the probes must ascend within {first} to {n_layers - 1}, not "
                f"{list(self.layers)}."
            )
        shape = (len(self.layers), len(self.classes))
        if tuple(self.weights.shape) != (*shape, d_model) or tuple(self.bias.shape) != shape:
            raise DataError(
                f"The probes have shapes {list(self.weights.shape)} and {list(self.bias.shape)}, "
                f"not {[*shape, d_model]} and {list(shape)}."
            )
        if not bool(self.weights.isfinite().all() and self.bias.isfinite().all()):
            raise DataError("The probes hold NaN or infinity.")

    def facts(self) -> dict[str, Any]:
        """What a file says besides the tensors."""
        return {
            "classes": list(self.classes),
            "layers": list(self.layers),
            "hooks": [_hook(layer) for layer in self.layers],
        }

    @classmethod
    def from_file(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Readout:
        """Inverse of `facts` and the tensors ``weights`` and ``bias``."""
        return cls(
            tuple(facts["classes"]), tuple(facts["layers"]), tensors["weights"], tensors["bias"]
        )


def _hook(layer: int) -> str:
    """TransformerLens's name of what a probe reads."""
    site = Site(0, "resid_pre") if layer == EMBEDDINGS else Site(layer, "resid_post")
    return site.hook_name


def probabilities(
    hidden: Float[Tensor, "... d_model"],
    weights: Float[Tensor, "label d_model"],
    bias: Float[Tensor, " label"],
) -> Float[Tensor, "... label"]:
    """Softmax of a linear probe, in float32."""
    return (hidden.float() @ weights.T + bias).softmax(-1)


@dataclass(frozen=True, eq=False)
class GateTable:
    """What one probe decides, per row of a steering table.

    Attributes:
        layer: Block after which the probe reads, or `EMBEDDINGS`.
        weights, bias: Of that probe.
        labels: Class each row asks about.
        sign: 1 for above, -1 for below, 0 for rows that this probe does not decide.
        threshold: Of each row.
    """

    layer: int
    weights: Float[Tensor, "label d_model"]
    bias: Float[Tensor, " label"]
    labels: Int[Tensor, " row"]
    sign: Float[Tensor, " row"]
    threshold: Float[Tensor, " row"]

    def open(
        self, hidden: Float[Tensor, "batch pos d_model"], rows: Int[Tensor, " batch"]
    ) -> Bool[Tensor, "batch pos"]:
        """Which tokens may be steered: all of rows it does not decide, the others as it says.

        Args:
            hidden: Residual stream after the block, before that block's steering.
            rows: Row of the table of each row of the batch.
        """
        found = probabilities(hidden, self.weights, self.bias)
        asked = self.labels[rows][:, None, None].expand(*found.shape[:2], 1)
        excess = found.gather(-1, asked)[..., 0] - self.threshold[rows][:, None]
        sign = self.sign[rows][:, None]
        return (sign == 0) | (sign * excess > 0)

    def to(self, device: torch.device | str) -> GateTable:
        """The same on another device."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("weights", "bias", "labels", "sign", "threshold")
        }
        return GateTable(self.layer, **moved)


def gate_tables(
    readout: Readout, gates: Sequence[Gate | None], deciders: Sequence[int]
) -> tuple[GateTable, ...]:
    """Stack the gates of the rows of a table (row 0 included), one table per probe that decides.

    Args:
        readout: The probes.
        gates: Of each row.
        deciders: Of each row, which probe decides; anything where there is no gate.
    """
    tables: list[GateTable] = []
    for i, layer in enumerate(readout.layers):
        mine = [g if n == i else None for g, n in zip(gates, deciders, strict=True)]
        if not any(mine):
            continue
        tables.append(
            GateTable(
                layer,
                readout.weights[i],
                readout.bias[i],
                torch.tensor([readout.classes.index(g.label) if g else 0 for g in mine]),
                torch.tensor([(1.0 if g.above else -1.0) if g else 0.0 for g in mine]),
                torch.tensor([g.threshold if g else 0.0 for g in mine]),
            )
        )
    return tuple(tables)


def decided(place: WritePoint, layer: int) -> bool:
    """Whether what a probe reads after block ``layer`` is known when a place is reached.

    It is at that block's own ``resid_post``, too: the probe reads before what is written there.
    """
    return place.layer > layer or (place.layer == layer and place.point == "resid_post")


def decider(readout: Readout | None, gate: Gate, first: WritePoint | None) -> int:
    """Which probe decides a gate: the last one that reads before the first place steered.

    Args:
        readout: The probes, if there are any.
        gate: The gate.
        first: Where the request begins to steer; None if nowhere.

    Raises:
        DataError: If there are no probes, or all of them read too late.
        UnknownNameError: If they do not know the emotion; closest first.
    """
    if readout is None:
        raise DataError(
            "This pack holds no probes, which a gate needs; make it with pack.with_readout(sweep)."
        )
    if gate.label not in readout.classes:
        raise unknown("gate emotion", gate.label, readout.classes)
    in_time = [i for i, n in enumerate(readout.layers) if first is None or decided(first, n)]
    if in_time:
        return in_time[-1]
    assert first is not None  # a request that steers nowhere is decided by any probe
    raise DataError(
        f"The gate {gate} is decided after block {readout.layers[0]}, but this request steers from "
        f"block {first.layer} ({first.point}) on, before that; put a probe that reads earlier into "
        f"the pack (pack.with_readout(sweep, gates=LAYER), {EMBEDDINGS} for the embeddings), or "
        "steer in a mode that begins later."
    )
