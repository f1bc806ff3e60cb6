"""Who is steered how: requests that run, their slots, and the slot of every token of a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from affectlens.core import DataError
from affectlens.serving.loaded_packs import Shelf
from affectlens.serving.readings import Readings
from affectlens.serving.slot_tables import Slots
from affectlens.steering.gates import Gate
from affectlens.steering.positions import interval
from affectlens.steering.schedules import Schedule
from affectlens.steering.spec import SteeringSpec


@dataclass(frozen=True)
class Entry:
    """A request that has begun.

    Attributes:
        start, stop: Absolute positions that are steered.
        prompt: Tokens of its prompt, from which a schedule counts.
        pack: Name on the shelf.
        spec: What it asks for, resolved.
        key: Equal for requests that can share a slot.
    """

    start: int
    stop: int
    prompt: int
    pack: str
    spec: SteeringSpec
    key: tuple[str, str]


@dataclass(frozen=True, eq=False)
class Marks:
    """What tables are told of a step.

    Attributes:
        rows: The slot of every token; 0 leaves it alone.
        shares: How much of its steering every token gets; None: all of it.
    """

    rows: Int[np.ndarray, " token"]
    shares: Float[np.ndarray, " token"] | None


class Ledger:
    """The requests of one worker.

    Requests that mean the same share a slot. A slot is bound when a request is in a step, and may
    be taken from one that is not (a server holds more preempted requests than it runs), so as many
    slots as requests in a step are always enough.

    Args:
        slots: Tables to write.
        readings: Gates to write.
        shelf: Packs to look requests up in.
    """

    def __init__(self, slots: Slots, readings: Readings | None, shelf: Shelf) -> None:
        self._slots, self._readings, self._shelf = slots, readings, shelf
        self._entries: dict[str, Entry] = {}
        self._uses: Counter[tuple[str, str]] = Counter()
        self._slot_of: dict[tuple[str, str], int] = {}
        self._free = list(range(slots.capacity.slots, 0, -1))

    def __contains__(self, request: str) -> bool:
        return request in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def slots_in_use(self) -> int:
        """How many slots mean something."""
        return len(self._slot_of)

    def slot_of(self, request: str) -> int:
        """The slot a request holds; 0 if it holds none."""
        entry = self._entries.get(request)
        return self._slot_of.get(entry.key, 0) if entry else 0

    def add(self, request: str, pack: str, spec: SteeringSpec, prompt_length: int) -> None:
        """Know a request from now on.

        Args:
            request: Its id.
            pack: Name on the shelf.
            spec: Resolved by that pack.
            prompt_length: Tokens of its prompt.
        """
        self.remove(request)
        start, stop = interval(str(spec.positions), prompt_length)
        entry = self._entries[request] = Entry(
            start, stop, prompt_length, pack, spec, (pack, str(spec))
        )
        self._uses[entry.key] += 1

    def remove(self, request: str) -> None:
        """Forget a request; its slot is free when nobody else shares it."""
        entry = self._entries.pop(request, None)
        if entry is None:
            return
        self._uses[entry.key] -= 1
        if not self._uses[entry.key]:
            del self._uses[entry.key]
            self._release(entry.key)

    def marks(
        self,
        requests: Sequence[str],
        computed: Int[np.ndarray, " request"],
        scheduled: Int[np.ndarray, " request"],
    ) -> Marks | None:
        """The slot of every token of a step, in the order of the requests.

        Args:
            requests: Ids, in the order of the batch.
            computed: Tokens of each that are in the cache already.
            scheduled: Tokens of each in this step.

        Returns:
            None if no token is steered.

        Raises:
            DataError: If the step holds more different requests than there are slots.
        """
        if not self._entries:
            return None
        found = [self._entries.get(request) for request in requests]
        if not any(found):
            return None
        now = {entry.key for entry in found if entry}
        slots = np.array([self._bound(e, now) if e else 0 for e in found], dtype=np.int64)
        # A token's position is absolute, so chunks, preemption and prefix hits change nothing.
        ends = np.cumsum(scheduled)
        first = np.repeat(computed - (ends - scheduled), scheduled)
        positions = np.arange(ends[-1]) + first
        starts = np.repeat([e.start if e else 0 for e in found], scheduled)
        stops = np.repeat([e.stop if e else 0 for e in found], scheduled)
        rows = np.repeat(slots, scheduled)
        rows[(positions < starts) | (positions >= stops)] = 0
        shares = _shares(found, positions, scheduled)
        if shares is not None:
            rows[shares == 0] = 0  # bit for bit what the model gives, not a sum with nothing
        return Marks(rows, shares) if rows.any() else None

    def _bound(self, entry: Entry, now: Set[tuple[str, str]]) -> int:
        """The slot of a request in this step, taken from one outside it if need be."""
        slot = self._slot_of.get(entry.key)
        if slot is not None:
            return slot
        if not self._free:
            idle = next((key for key in self._slot_of if key not in now), None)
            if idle is None:
                raise DataError("All steering slots are taken; reserve one per running request.")
            self._release(idle)
        slot = self._free.pop()
        loaded = self._shelf[entry.pack]
        places = tuple(self._slots.places)
        self._slots.write(slot, loaded.first, loaded.coefficients(entry.spec, places))
        gate, probes = entry.spec.gate, loaded.pack.deciders
        if isinstance(gate, Gate):
            if self._readings is None or loaded.columns is None or probes is None:
                # The front door lets none of these in; steering without the gate would be wrong.
                raise DataError(f"This worker runs no probes, which the gate {gate} needs.")
            layer = probes.layers[loaded.pack.decider(entry.spec)]
            self._readings.write(slot, loaded.columns, gate, layer)
        self._slot_of[entry.key] = slot
        return slot

    def _release(self, key: tuple[str, str]) -> None:
        slot = self._slot_of.pop(key, None)
        if slot is None:
            return
        self._slots.clear(slot)
        if self._readings is not None:
            self._readings.clear(slot)
        self._free.append(slot)


def _shares(
    found: Sequence[Entry | None],
    positions: Int[np.ndarray, " token"],
    scheduled: Int[np.ndarray, " request"],
) -> Float[np.ndarray, " token"] | None:
    """Equal schedules at once: most requests of a batch have none, or one of a few."""
    curves: dict[Schedule, list[int]] = {}
    for i, entry in enumerate(found):
        if entry is not None and isinstance(entry.spec.schedule, Schedule):
            curves.setdefault(entry.spec.schedule, []).append(i)
    if not curves:
        return None
    tokens = positions - np.repeat([e.prompt if e else 0 for e in found], scheduled)
    shares = np.ones(len(tokens), dtype=np.float32)
    for schedule, requests in curves.items():
        mine = np.zeros(len(found), dtype=bool)
        mine[requests] = True
        mine = np.repeat(mine, scheduled)
        shares[mine] = schedule.shares_at(tokens[mine])
    return None if (shares == 1).all() else shares
