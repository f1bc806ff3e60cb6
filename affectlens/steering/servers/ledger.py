"""Who is steered how: requests that run, their slots, and the slot of every token of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from affectlens.core import DataError
from affectlens.steering.gates import Gate
from affectlens.steering.positions import interval
from affectlens.steering.servers.readings import Readings
from affectlens.steering.servers.shelf import Shelf
from affectlens.steering.servers.slots import Slots
from affectlens.steering.spec import SteeringSpec


@dataclass(frozen=True)
class Entry:
    """A request that runs.

    Attributes:
        slot: Its slot; requests that mean the same share one.
        start, stop: Absolute positions that are steered.
        key: What the slot means.
    """

    slot: int
    start: int
    stop: int
    key: tuple[str, str]


class Ledger:
    """The requests of one worker.

    Args:
        slots: Tables to write.
        readings: Gates to write.
        shelf: Packs to look requests up in.
    """

    def __init__(self, slots: Slots, readings: Readings | None, shelf: Shelf) -> None:
        self._slots, self._readings, self._shelf = slots, readings, shelf
        self._entries: dict[str, Entry] = {}
        self._uses: dict[tuple[str, str], int] = {}
        self._slot_of: dict[tuple[str, str], int] = {}
        self._free = list(range(slots.capacity.slots, 0, -1))

    def __contains__(self, request: str) -> bool:
        return request in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def slots_in_use(self) -> int:
        """Different requests that hold a slot."""
        return len(self._slot_of)

    def users_of(self, pack: str) -> int:
        """How many running requests use a pack."""
        return sum(entry.key[0] == pack for entry in self._entries.values())

    def add(self, request: str, pack: str, spec: SteeringSpec, prompt_length: int) -> None:
        """Start to steer a request.

        Args:
            request: Its id.
            pack: Name on the shelf.
            spec: Resolved by that pack.
            prompt_length: Tokens of its prompt.

        Raises:
            DataError: If all slots are taken, which as many slots as requests rule out.
        """
        self.remove(request)
        start, stop = interval(str(spec.positions), prompt_length)
        key = (pack, str(spec))
        slot = self._slot_of.get(key)
        if slot is None:
            if not self._free:
                raise DataError("All steering slots are taken; reserve one per running request.")
            slot = self._free.pop()
            loaded = self._shelf[pack]
            self._slots.write(
                slot, loaded.first, loaded.coefficients(spec, tuple(self._slots.places))
            )
            if self._readings is not None and loaded.columns is not None:
                gate = spec.gate if isinstance(spec.gate, Gate) else None
                self._readings.write(slot, loaded.columns, gate)
            self._slot_of[key] = slot
        self._uses[key] = self._uses.get(key, 0) + 1
        self._entries[request] = Entry(slot, start, stop, key)

    def remove(self, request: str) -> None:
        """Forget a request; its slot is free when nobody else shares it."""
        entry = self._entries.pop(request, None)
        if entry is None:
            return
        self._uses[entry.key] -= 1
        if self._uses[entry.key] == 0:
            del self._uses[entry.key], self._slot_of[entry.key]
            self._slots.clear(entry.slot)
            if self._readings is not None:
                self._readings.gated.discard(entry.slot)
                self._readings.decider[entry.slot] = -1
            self._free.append(entry.slot)

    def rows(
        self,
        requests: Sequence[str],
        computed: Int[np.ndarray, " request"],
        scheduled: Int[np.ndarray, " request"],
    ) -> Int[np.ndarray, " token"] | None:
        """The slot of every token of a step, in the order of the requests.

        Args:
            requests: Ids, in the order of the batch.
            computed: Tokens of each that are in the cache already.
            scheduled: Tokens of each in this step.

        Returns:
            Slots; None if no token is steered.
        """
        if not self._entries:
            return None
        found = [self._entries.get(request) for request in requests]
        slots = np.array([e.slot if e else 0 for e in found], dtype=np.int64)
        if not slots.any():
            return None
        # A token's position is absolute, so chunks, preemption and prefix hits change nothing.
        ends = np.cumsum(scheduled)
        first = np.repeat(computed - (ends - scheduled), scheduled)
        positions = np.arange(ends[-1]) + first
        starts = np.repeat([e.start if e else 0 for e in found], scheduled)
        stops = np.repeat([e.stop if e else 0 for e in found], scheduled)
        rows = np.repeat(slots, scheduled)
        rows[(positions < starts) | (positions >= stops)] = 0
        return rows if rows.any() else None
