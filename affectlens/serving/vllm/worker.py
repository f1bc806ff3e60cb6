"""Steering in one worker: tables made after the model is loaded, rows written before each step.

An adapter per runner says which token belongs to which request; everything else is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from affectlens.core import DataError
from affectlens.core.places import WritePoint, in_order
from affectlens.serving.loaded_packs import Shelf, probes_of
from affectlens.serving.readings import Columns, Readings
from affectlens.serving.request_fields import Asked
from affectlens.serving.request_slots import Ledger
from affectlens.serving.settings import Settings
from affectlens.serving.slot_tables import Capacity, Slots
from affectlens.serving.vllm.live_readings import Pending
from affectlens.serving.vllm.model_hooks import find_blocks, install
from affectlens.steering.operators import OPERATORS
from affectlens.steering.pack import SteeringPack
from affectlens.steering.pack_places import columns_of, places_of
from affectlens.steering.spec import MODES, SteeringSpec

logger = logging.getLogger(__name__)


class WorkerSteering:
    """What a worker needs to steer its part of the model.

    Args:
        model: vLLM's model, loaded.
        settings: Of the plug-in.
        max_requests: Most requests that run at once.
        max_tokens: Most tokens of a step.
        d_model: Width of the residual stream.
        device: Of the model.
        recorded: Whether steps are replayed from compiled code or CUDA graphs.
    """

    def __init__(
        self,
        model: Any,
        settings: Settings,
        *,
        max_requests: int,
        max_tokens: int,
        d_model: int,
        device: torch.device,
        recorded: bool,
    ) -> None:
        packs = settings.load()
        blocks = find_blocks(model)
        reserved = reserved_places(settings, packs)
        held = {block.layer for block in blocks}
        spare = max(len(pack.emotions) for pack in packs.values())
        columns = sum(columns_of(pack) for pack in packs.values())
        capacity = Capacity(
            slots=max_requests,
            # Tables grow with the square of this: maps count where they are, not for every pack.
            vectors=columns + (settings.max_packs - len(packs)) * spare,
            tokens=max_tokens,
            d_model=d_model,
            projects=any(OPERATORS[name].projects for name in settings.operators)
            or any(pack.low_rank for pack in packs.values()),
            turns=any(OPERATORS[name].keeps_norm for name in settings.operators),
            recorded=recorded,
        )
        self.slots = Slots([p for p in reserved if p.layer in held], capacity, device)
        self.readings = self._make_readings(settings, packs, max_tokens)
        self.shelf = Shelf(self.slots, self.readings, reserved)
        for name, pack in packs.items():
            self.shelf.load(name, pack)
        self.ledger = Ledger(self.slots, self.readings, self.shelf)
        self.users: dict[str, str] = {}
        self.readers: dict[str, Columns] = {}
        self.last: tuple[tuple[str, ...], np.ndarray] = ((), np.zeros(0, dtype=np.int64))
        self.steps = 0
        self.steered_tokens = 0
        install(blocks, self.slots, self.readings)
        logger.info(
            "Steering with %s at %d places, %d slots.",
            ", ".join(packs), len(self.slots.places), max_requests,
        )  # fmt: skip

    def _make_readings(
        self,
        settings: Settings,
        packs: Mapping[str, SteeringPack],
        max_tokens: int,
    ) -> Readings | None:
        if not settings.read:
            return None
        found = [probes for pack in packs.values() for probes in probes_of(pack)]
        # A model that is split into stages is never read, so this worker holds every block.
        layers = sorted({layer for probes in found for layer in probes.layers})
        if not layers:
            return None
        classes = settings.max_packs * max(len(probes.classes) for probes in found)
        return Readings(tuple(layers), classes, self.slots, max_tokens)

    def add(self, request: str, sampling_params: Any, prompt_length: int) -> None:
        """A request starts to run (or runs again)."""
        asked = Asked.of(sampling_params)
        if asked is None:
            return
        self.users[request] = asked.pack
        if asked.read:
            columns = self.shelf[asked.pack].columns
            if columns is not None:
                self.readers[request] = columns
        if not asked.spec:
            return
        spec = SteeringSpec.parse(asked.spec, self.shelf[asked.pack].pack.emotions)
        length = prompt_length if asked.prompt is None else asked.prompt
        self.ledger.add(request, asked.pack, spec, length)

    def remove(self, request: str) -> None:
        """A request is finished or gone."""
        self.ledger.remove(request)
        self.users.pop(request, None)
        self.readers.pop(request, None)

    def before_step(
        self,
        requests: Sequence[str],
        computed: Int[np.ndarray, " request"],
        scheduled: Int[np.ndarray, " request"],
    ) -> None:
        """Write the slot of every token of the step that comes."""
        self.steps += 1
        if self.readings is not None:
            self.readings.wanted = any(request in self.readers for request in requests)
            self.last = tuple(requests), np.cumsum(scheduled) - 1
        marks = self.ledger.marks(requests, computed, scheduled)
        if marks is None:
            self.slots.rest()
            return
        self.steered_tokens += int(np.count_nonzero(marks.rows))
        shares = None if marks.shares is None else self._staged(marks.shares)
        self.slots.set_rows(self._staged(marks.rows), shares)

    def _staged(self, values: np.ndarray) -> torch.Tensor:
        staged = torch.from_numpy(values)
        # Pinned memory of its own: the copy of the step before may still be under way.
        return staged.pin_memory() if self.slots.rows.is_cuda else staged

    def after_step(self) -> Pending | None:
        """Scores at the last token of every request that wants to be read; None if none does."""
        if self.readings is None or not self.readings.wanted:
            return None
        requests, ends = self.last
        where = [i for i, request in enumerate(requests) if request in self.readers]
        index = torch.from_numpy(ends[where]).to(self.slots.rows.device)
        return Pending(
            tuple(requests[i] for i in where),
            tuple(self.readers[requests[i]] for i in where),
            tuple(self.readings.layers),
            self.readings.scores[:, index],  # indexing copies: the next step may overwrite them
        )

    # What the front end may ask for.

    def load_pack(self, name: str, path: str, fingerprint: str) -> None:
        """Load a pack from a file that every worker can read."""
        pack = SteeringPack.load(path)
        if pack.fingerprint != fingerprint:
            raise DataError(f"{path} is not the file the server has seen; load it again.")
        self.shelf.load(name, pack)

    def unload_pack(self, name: str) -> None:
        """Unload a pack that no request uses."""
        if users := self.users_of(name):
            raise DataError(f"Pack {name} is still used ({users} under way).")
        self.shelf.unload(name)

    def users_of(self, name: str) -> int:
        """How many requests use a pack, to be steered or only read."""
        return sum(pack == name for pack in self.users.values())

    def state(self) -> dict[str, Any]:
        """Figures for people and for metrics."""
        return {
            "packs": {name: self.users_of(name) for name in self.shelf.names},
            "requests": len(self.ledger),
            "slots_in_use": self.ledger.slots_in_use,
            "slots": self.slots.capacity.slots,
            "steps": self.steps,
            "steered_tokens": self.steered_tokens,
        }


def reserved_places(
    settings: Settings, packs: Mapping[str, SteeringPack]
) -> tuple[WritePoint, ...]:
    """Every place steering may write to, on whichever worker."""
    if settings.reserve == "all":
        n_layers = max(pack.n_layers for pack in packs.values())
        points = [point for mode in MODES.values() for point in mode]
        places = {WritePoint(layer, point) for layer in range(n_layers) for point in points}
    else:
        places = {place for pack in packs.values() for place in places_of(pack)}
    return tuple(in_order(places))
