"""Forward passes in which every row is steered and read as its own request asks.

The tables are those of the vLLM plug-in (`affectlens.serving.slot_tables`): a request is a few
coefficients in a slot, a token points to its slot, and slot 0 does nothing. Here they are made anew
when a pack comes along that they do not hold, so nothing has to be reserved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.core.places import WritePoint, in_order
from affectlens.models import step as stepping
from affectlens.models.generation.attention import fast_decoding
from affectlens.models.hooking.hooks import writing
from affectlens.serving.loaded_packs import Shelf, probes_of
from affectlens.serving.local.generation import Steered
from affectlens.serving.readings import Columns, Readings
from affectlens.serving.reply_readings import Scores
from affectlens.serving.request_slots import Ledger
from affectlens.serving.slot_tables import Capacity, Slots
from affectlens.steering.gates import EMBEDDINGS, decided
from affectlens.steering.pack_places import columns_of, places_of

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel
    from affectlens.steering.pack import SteeringPack

KEPT = 8
"""Packs that stay in the tables, though nobody uses them just now."""


@dataclass(frozen=True, eq=False)
class Span:
    """Which tokens of each row a pass holds.

    Attributes:
        names: Rows, in the order of the batch.
        real: Which tokens of the batch are no padding; the last column is real in every row.
        before: Of each row, how many tokens come before its first one here.
    """

    names: tuple[str, ...]
    real: Bool[Tensor, "row pos"]
    before: Int[np.ndarray, " row"]


@dataclass(frozen=True, eq=False)
class Passed:
    """What a pass gave.

    Attributes:
        logits: After the last token of every row.
        scores: Row to what its probes say there, for rows that are read.
    """

    logits: Float[Tensor, "row vocab"]
    scores: Mapping[str, Scores]


@dataclass(frozen=True, eq=False)
class _Tables:
    packs: Mapping[str, SteeringPack]
    slots: Slots
    readings: Readings | None
    shelf: Shelf
    ledger: Ledger


@dataclass(frozen=True, eq=False)
class _Known:
    steered: Steered
    prompt_length: int


class SteeredPasses:
    """Runs a model for the rows of a batch.

    Args:
        model: The model.
        rows: Most rows that are known at once.
        tokens: Most tokens of a pass, padding included.
    """

    def __init__(self, model: LanguageModel, rows: int, tokens: int) -> None:
        self._model, self._rows, self._tokens = model, rows, tokens
        self._known: dict[str, _Known] = {}
        self._packs: dict[str, SteeringPack] = {}  # the one used last at the end
        self._tables: _Tables | None = None
        self._hooks, self._attention = ExitStack(), ExitStack()
        self._running = False
        self.steered_tokens = 0

    @property
    def slots_in_use(self) -> int:
        """How many different requests are being steered."""
        return 0 if self._tables is None else self._tables.ledger.slots_in_use

    def add(self, name: str, steered: Steered | None, prompt_length: int) -> None:
        """Know a row from now on.

        Raises:
            AffectLensError: If its pack cannot be used with this model.
        """
        if steered is None:
            return
        self._require(steered.pack)
        self._known[name] = _Known(steered, prompt_length)
        self._enter(name, self._known[name])

    def remove(self, name: str) -> None:
        """Forget a row."""
        if self._known.pop(name, None) is not None and self._tables is not None:
            self._tables.ledger.remove(name)

    def __call__(
        self, span: Span, ids: Int[Tensor, "row pos"], mask: Int[Tensor, "row total"], cache: Any
    ) -> Passed:
        """One forward pass.

        Args:
            span: Whose tokens they are.
            ids: Tokens that the cache does not hold.
            mask: Of all tokens, those in the cache included; 1 for real ones.
            cache: Keys and values; gets those of the new tokens.
        """
        if not self._running:
            self._attention.enter_context(fast_decoding(self._model.hf))
            self._running = True
        readers = self._prepare(span)
        logits = stepping.step(self._model.hf, ids, mask, cache)
        return Passed(logits, self._read(span, readers))

    def pause(self) -> None:
        """Leave the model to others as it is; the next pass takes it back."""
        self._attention.close()
        self._running = False

    def close(self) -> None:
        """Leave it for good."""
        self.pause()
        self._hooks.close()
        self._tables = None

    def _enter(self, name: str, known: _Known) -> None:
        assert self._tables is not None
        if known.steered.spec:
            pack = known.steered.pack.fingerprint
            self._tables.ledger.add(name, pack, known.steered.spec, known.prompt_length)

    def _require(self, pack: SteeringPack) -> None:
        """Have a pack in the tables."""
        self._packs.pop(pack.fingerprint, None)
        self._packs[pack.fingerprint] = pack
        if self._tables is not None and pack.fingerprint in self._tables.packs:
            return
        used = {one.steered.pack.fingerprint for one in self._known.values()}
        idle = [name for name in self._packs if name not in used and name != pack.fingerprint]
        for name in idle[: max(0, len(self._packs) - KEPT)]:
            del self._packs[name]
        self._hooks.close()
        self._tables = None
        try:
            self._tables = _made(self._model, dict(self._packs), self._rows, self._tokens)
        except Exception:
            del self._packs[pack.fingerprint]
            if self._packs:
                self._tables = _made(self._model, dict(self._packs), self._rows, self._tokens)
            raise
        finally:
            if self._tables is not None:
                self._hooks.enter_context(writing(self._model.anatomy, _writers(self._tables)))
                for name, known in self._known.items():
                    self._enter(name, known)

    def _prepare(self, span: Span) -> dict[int, Columns]:
        """Write the slot of every token of the pass; gives the rows that are read."""
        if self._tables is None:
            return {}
        slots, readings = self._tables.slots, self._tables.readings
        readers: dict[int, Columns] = {}
        for i, name in enumerate(span.names):
            known = self._known.get(name)
            if known is not None and known.steered.read:
                columns = self._tables.shelf[known.steered.pack.fingerprint].columns
                if columns is not None:
                    readers[i] = columns
        if readings is not None:
            readings.wanted = bool(readers)
        counts = span.real.sum(-1).cpu().numpy()
        marks = self._tables.ledger.marks(span.names, span.before, counts)
        if marks is None:
            slots.rest()
            return readers
        self.steered_tokens += int(np.count_nonzero(marks.rows))
        shares = None if marks.shares is None else _spread(span, marks.shares, 1.0)
        slots.set_rows(_spread(span, marks.rows, 0), shares)
        return readers

    def _read(self, span: Span, readers: Mapping[int, Columns]) -> dict[str, Scores]:
        if not readers:
            return {}
        assert self._tables is not None and self._tables.readings is not None
        readings, width = self._tables.readings, span.real.shape[1]
        last = torch.tensor([(i + 1) * width - 1 for i in readers], device=readings.scores.device)
        values = readings.scores[:, last].cpu()
        found: dict[str, Scores] = {}
        for at, (i, columns) in enumerate(readers.items()):
            layers = [readings.layers[layer] for layer in columns.layers]
            where = slice(columns.first, columns.first + len(columns.classes))
            found[span.names[i]] = values[layers, at, where].tolist()
        return found


def _spread(span: Span, values: np.ndarray, padding: float) -> Tensor:
    """Values of real tokens among all of a pass."""
    told = torch.from_numpy(values).to(span.real.device)
    found = torch.full((span.real.numel(),), padding, dtype=told.dtype, device=told.device)
    found[span.real.flatten()] = told
    return found


def _made(
    model: LanguageModel, packs: Mapping[str, SteeringPack], rows: int, tokens: int
) -> _Tables:
    """Tables for packs by fingerprint."""
    places = tuple(in_order({place for pack in packs.values() for place in places_of(pack)}))
    probes = {name: probes_of(pack) for name, pack in packs.items()}
    columns = sum(columns_of(pack) for pack in packs.values())
    slots = Slots(places, Capacity(rows, columns, tokens, model.d_model), model.device)
    layers = sorted({layer for found in probes.values() for one in found for layer in one.layers})
    classes = sum(len(found[0].classes) for found in probes.values() if found)
    readings = Readings(tuple(layers), classes, slots, tokens) if layers else None
    shelf = Shelf(slots, readings, places)
    for name, pack in packs.items():
        shelf.load(name, pack)
    return _Tables(packs, slots, readings, shelf, Ledger(slots, readings, shelf))


def _writers(tables: _Tables) -> dict[WritePoint, Callable[[Tensor], Tensor | None]]:
    """What is done at every place where something is steered or read."""
    places = set(tables.slots.places)
    for layer in () if tables.readings is None else tables.readings.layers:
        at_words = layer == EMBEDDINGS
        places.add(WritePoint(0, "resid_pre") if at_words else WritePoint(layer, "resid_post"))
    return {place: _writer(tables, place) for place in in_order(places)}


def _writer(tables: _Tables, place: WritePoint) -> Callable[[Tensor], Tensor | None]:
    slots, readings = tables.slots, tables.readings
    index, layer = slots.places.get(place), None
    if readings is not None and place.point in ("resid_pre", "resid_post"):
        layer = readings.layers.get(EMBEDDINGS if place.point == "resid_pre" else place.layer)
    gated = readings is not None and any(decided(place, n) for n in readings.layers)

    def write(hidden: Tensor) -> Tensor | None:
        flat = hidden.reshape(-1, hidden.shape[-1]).to(slots.rows.device)
        changed = None
        if slots.busy:
            if readings is not None and layer is not None:
                readings.decide_at(layer, flat)
            if index is not None:
                changed = flat = slots.apply_at(index, flat, gated=gated)
        if readings is not None and layer is not None and readings.wanted:
            readings.read_at(layer, flat)
        return None if changed is None else changed.reshape(hidden.shape).to(hidden.device)

    return write
