"""What figures show of artefacts that are too large for a report: the numbers alone.

A report must be drawn again from its saved numbers, long after the vectors of a run are gone. So a
figure of probes, directions or a circuit takes the artefact itself, or its summary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from affectlens.core.errors import DataError
from affectlens.core.places import Site

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from affectlens.circuits import Circuit
    from affectlens.circuits.overlap import Overlap
    from affectlens.geometry import Directions
    from affectlens.probes import Sweep

TOP_NEURONS = 24
"""Largest contributions shown per block."""


def _require(name: str, value: ArrayLike | None, *shape: int | None) -> None:
    """Check the shape of an array; ``None`` in ``shape`` accepts any length."""
    if value is None:
        return
    found = np.shape(value)
    if len(found) != len(shape) or any(
        w not in (None, f) for f, w in zip(found, shape, strict=True)
    ):
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise DataError(f"{name} has shape {list(found)} but the report needs [{wanted}].")


@dataclass(frozen=True, eq=False)
class SweepSummary:
    """Held-out probe accuracy by layer.

    Attributes:
        layers: Block indices, from 0.
        accuracy: In [0, 1], ``[layer]``.
        low, high: Ends of its 95 % interval, ``[layer]``.
        chance: Accuracy of guessing.
        best: Index into ``layers`` of the layer that was chosen.
        site: Kind of site that was read.
        control: Accuracy on permuted labels, ``[layer]``.
        baselines: Accuracy of something simpler, by name.
    """

    layers: Sequence[int]
    accuracy: ArrayLike
    low: ArrayLike
    high: ArrayLike
    chance: float
    best: int
    site: str = "resid_post"
    control: ArrayLike | None = None
    baselines: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        for name in ("accuracy", "low", "high", "control"):
            _require(f"probes.{name}", getattr(self, name), len(self.layers))
        if not 0 <= self.best < len(self.layers):
            raise DataError(f"probes.best is {self.best} but there are {len(self.layers)} layers.")

    @classmethod
    def of(cls, sweep: Sweep) -> SweepSummary:
        """Accuracy at the sites of the kind that was best; majority and embeddings as baselines."""
        kind = sweep.best.kind
        rows = [i for i, site in enumerate(sweep.sites) if site.kind == kind]
        layers = [sweep.sites[i].layer for i in rows]
        embeddings = sweep.to_dict()["embeddings"]
        baselines = {"majority": sweep.majority}
        if embeddings is not None:
            baselines["embeddings"] = embeddings
        return cls(
            layers=layers,
            accuracy=sweep.accuracy[rows].numpy(),
            low=sweep.ci[rows, 0].numpy(),
            high=sweep.ci[rows, 1].numpy(),
            chance=1 / len(sweep.classes),
            best=layers.index(sweep.best.layer),
            site=kind,
            baselines=baselines,
        )


def most_reliable_site(directions: Directions) -> Site:
    """Where the directions of two halves agree best; the middle one if that was not measured."""
    halves, middle = directions.split_half, len(directions.sites) // 2
    return directions.sites[middle if halves is None else int(halves.mean(1).argmax())]


@dataclass(frozen=True, eq=False)
class DirectionsSummary:
    """How directions lie to each other at one layer, and how reliable they are at all.

    Attributes:
        emotions: Order of every axis called ``emotion``.
        cosines: ``[emotion, emotion]`` at ``layer``.
        layer: Block index.
        layers: Block indices along the axis ``layer``.
        split_half: Cosine between the directions of two random halves, ``[layer, emotion]``.
        estimator: How the directions were made.
    """

    emotions: Sequence[str]
    cosines: ArrayLike
    layer: int
    layers: Sequence[int] = ()
    split_half: ArrayLike | None = None
    estimator: str = "group_centred"

    def __post_init__(self) -> None:
        count = len(self.emotions)
        _require("directions.cosines", self.cosines, count, count)
        _require("directions.split_half", self.split_half, len(self.layers), count)

    @classmethod
    def of(cls, directions: Directions, site: Site | str | None = None) -> DirectionsSummary:
        """Cosines at one site, split-half cosines at all of its kind.

        Args:
            directions: Of any estimator.
            site: Or its hook name; default: `most_reliable_site`.

        Raises:
            UnknownNameError: If there are no directions for the site.
        """
        halves = directions.split_half
        chosen = directions.sites[directions.site_index(site or most_reliable_site(directions))]
        rows = [i for i, s in enumerate(directions.sites) if s.kind == chosen.kind]
        return cls(
            emotions=directions.emotions,
            cosines=directions.cosine_matrix(chosen).numpy(),
            layer=chosen.layer,
            layers=[directions.sites[i].layer for i in rows],
            split_half=None if halves is None else halves[rows].numpy(),
            estimator=directions.estimator,
        )


@dataclass(frozen=True, eq=False)
class CircuitSummary:
    """Where the units of a circuit are and what they write.

    Attributes:
        emotions: Order of every axis called ``emotion``.
        layers: Block indices.
        heads: Contribution of every head, ``[emotion, layer, head]``.
        neurons: Contribution of the strongest neurons, sorted, ``[emotion, layer, rank]``.
        influence: ``[emotion, layer, 2]``, attention then MLP.
        counts: Units chosen, ``[emotion, layer, 2]``, heads then neurons.
        overlap: Neurons two circuits share, beside what chance alone would give.
    """

    emotions: Sequence[str]
    layers: Sequence[int]
    heads: ArrayLike | None = None
    neurons: ArrayLike | None = None
    influence: ArrayLike | None = None
    counts: ArrayLike | None = None
    overlap: Overlap | None = None

    def __post_init__(self) -> None:
        emotions, layers = len(self.emotions), len(self.layers)
        for name in ("heads", "neurons"):
            _require(f"circuit.{name}", getattr(self, name), emotions, layers, None)
        for name in ("influence", "counts"):
            _require(f"circuit.{name}", getattr(self, name), emotions, layers, 2)
        if self.overlap is not None:
            for name in ("jaccard", "expected"):
                value = getattr(self.overlap, name)
                _require(f"circuit.overlap.{name}", value, emotions, emotions)

    @classmethod
    def of(cls, circuit: Circuit, top_neurons: int = TOP_NEURONS) -> CircuitSummary:
        """Contributions, influence, allocation, overlap of neurons.

        Args:
            circuit: Found or refined.
            top_neurons: How many of each layer to keep, the largest contributions first.
        """
        top = min(top_neurons, circuit.neuron_scores.shape[-1])
        return cls(
            emotions=circuit.emotions,
            layers=list(range(circuit.n_layers)),
            heads=circuit.head_scores.numpy(),
            neurons=circuit.neuron_scores.topk(top, dim=-1).values.numpy(),
            influence=None if circuit.influence is None else circuit.influence.chosen.numpy(),
            counts=circuit.allocation.numpy(),
            overlap=circuit.overlap("neurons"),
        )
