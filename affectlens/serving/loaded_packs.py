"""Packs that a server has loaded, and the room that is left for more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from affectlens.core import DataError, MismatchError
from affectlens.core.errors import unknown
from affectlens.core.places import WritePoint
from affectlens.serving.coefficients import Coefficients, coefficients
from affectlens.serving.readings import Columns, Readings
from affectlens.serving.slot_tables import Slots
from affectlens.steering.gates import Readout
from affectlens.steering.pack import SteeringPack
from affectlens.steering.pack_places import columns_of, places_of, vectors_at
from affectlens.steering.spec import SteeringSpec


@dataclass(frozen=True, eq=False)
class Loaded:
    """A pack in its place.

    Attributes:
        pack: The pack.
        first: First of its columns among the vectors.
        vectors: Its doses at the places of this worker, on the CPU.
        columns: Its probes' columns, if it has probes that this worker reads.
    """

    pack: SteeringPack
    first: int
    vectors: Float[Tensor, "place column d"]
    columns: Columns | None

    def coefficients(self, spec: SteeringSpec, places: Sequence[WritePoint]) -> Coefficients:
        """A request at every place."""
        return coefficients(self.pack, spec, places, self.vectors)


class Shelf:
    """The packs of one worker.

    Args:
        slots: Where vectors go.
        readings: Where probes go; None if none are read.
        reserved: Every place that was reserved at the start, on whichever worker.
    """

    def __init__(
        self, slots: Slots, readings: Readings | None, reserved: Sequence[WritePoint]
    ) -> None:
        self._slots, self._readings = slots, readings
        self._reserved = frozenset(reserved)
        self._packs: dict[str, Loaded] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What is loaded, the first one first."""
        return tuple(self._packs)

    def __getitem__(self, name: str) -> Loaded:
        if name not in self._packs:
            raise unknown("steering pack", name, self._packs)
        return self._packs[name]

    def load(self, name: str, pack: SteeringPack) -> None:
        """Put a pack into free columns.

        Raises:
            DataError: If the name is taken, there is no room, or the pack writes or reads where
                nothing was reserved when the server started.
            MismatchError: If its width is another one.
        """
        if name in self._packs:
            raise DataError(f"A pack called {name} is loaded already; unload it or use a new name.")
        capacity = self._slots.capacity
        if pack.d_model != capacity.d_model:
            raise MismatchError(
                f"Pack {name} is for a model of width {pack.d_model}, the served one has "
                f"{capacity.d_model}; make a pack for it."
            )
        missing = [place for place in places_of(pack) if place not in self._reserved]
        if missing:
            raise DataError(
                f"Pack {name} writes to {missing[0].point} of block {missing[0].layer} and "
                f"{len(missing) - 1} more places for which nothing was reserved; start the "
                "server with reserve=all."
            )
        if pack.low_rank and self._slots.scale is None:
            raise DataError(
                f"Pack {name} steers by maps, for which nothing was reserved; have it among the "
                "packs the server starts with."
            )
        first = _free(
            [(p.first, columns_of(p.pack)) for p in self._packs.values()],
            columns_of(pack),
            capacity.vectors,
        )
        if first is None:
            raise DataError(
                f"There is no room for pack {name} beside {', '.join(self._packs)}; unload one, or "
                "start the server with more max_packs."
            )
        columns = self._columns(name, pack)
        vectors = vectors_at(pack, tuple(self._slots.places))
        self._slots.put_vectors(first, vectors)
        if columns is not None and self._readings is not None:
            for probes in probes_of(pack):
                self._readings.put(columns, probes)
        self._packs[name] = Loaded(pack, first, vectors, columns)

    def unload(self, name: str) -> None:
        """Free a pack's columns. Nothing that is running may use it."""
        found = self[name]
        self._slots.put_vectors(found.first, found.vectors.new_zeros(found.vectors.shape))
        del self._packs[name]

    def _columns(self, name: str, pack: SteeringPack) -> Columns | None:
        probes = probes_of(pack)
        if self._readings is None or not probes:
            return None
        for layer in (layer for one in probes for layer in one.layers):
            if layer not in self._readings.layers:
                raise DataError(
                    f"Pack {name} reads after block {layer}, for which nothing was reserved; have "
                    "it among the packs the server starts with."
                )
        classes = probes[0].classes  # those of all of them
        first = _free(
            [(p.columns.first, len(p.columns.classes)) for p in self._packs.values() if p.columns],
            len(classes),
            self._readings.bias.shape[1],
        )
        if first is None:
            raise DataError(
                f"There is no room for the probes of pack {name}; unload another, or start the "
                "server with more max_packs."
            )
        return Columns(first, classes, pack.readout.layers if pack.readout else ())


def probes_of(pack: SteeringPack) -> tuple[Readout, ...]:
    """All probes that a server runs for a pack, those it reads by and those that decide gates."""
    return tuple(one for one in (pack.readout, pack.gates) if one is not None)


def _free(taken: Sequence[tuple[int, int]], wanted: int, capacity: int) -> int | None:
    """First gap of so many columns."""
    start = 0
    for first, size in sorted(taken):
        if first - start >= wanted:
            return start
        start = first + size
    return start if capacity - start >= wanted else None
