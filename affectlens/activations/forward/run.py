"""Running the batches of a plan through a model, and handing the rows to whoever wants them."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor

from affectlens.activations.forward.buffers import Block
from affectlens.activations.forward.engines import Engine
from affectlens.activations.forward.gather import Batch, Derived, Pick, make_batch
from affectlens.activations.forward.plan import CapturePlan
from affectlens.activations.forward.tokenised import Ints
from affectlens.core.errors import ModelError, unknown
from affectlens.core.places import Site
from affectlens.models.generation.listeners import announced

logger = logging.getLogger(__name__)

Rows = dict[tuple[Site, str], Tensor]

Advance = Callable[[int, int], object]
"""Told, after each forward pass, how many texts and how many tokens (without padding) it ran."""

_SIDES = ("right", "left")
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


class Sink(Protocol):
    """Takes rows, shard by shard."""

    def begin(self, shard: int) -> None:
        """Rows of this shard follow."""
        ...

    def write(self, site: Site, position: str, start: int, values: Tensor) -> None:
        """Take rows ``start ... start + n`` of a position, in storage order.

        Args:
            site: Where they were read.
            position: Which tokens they were read from.
            start: Storage row of the first.
            values: ``[n, width]``, on the device of the site, in float32 or the model's dtype. Its
                memory is used again once this returns.
        """
        ...

    def end(self) -> None:
        """The shard is complete."""
        ...


def run_shards(
    plan: CapturePlan,
    engine: Engine,
    sink: Sink,
    shards: Iterable[int],
    *,
    device: torch.device,
    padding: str = "right",
    advance: Advance = lambda _texts, _tokens: None,
) -> None:
    """Run the batches of some shards.

    A batch for which there is no memory is halved, and so are all that follow. What a batch gives
    reaches the sink only after its pass, so nothing is handed over twice.

    Args:
        plan: What to run.
        engine: Runs it.
        sink: Gets the rows.
        shards: Which shards, by number.
        device: Where the model takes its input.
        padding: Side on which short texts are filled up; changes nothing but rounding.
        advance: Told of every pass.

    Raises:
        UnknownNameError: If there is no such side.
        ModelError: If the memory does not hold a single text, or a site is never run.
        AffectLensError: Whatever the sink raises.
    """
    if padding not in _SIDES:
        raise unknown("side", padding, _SIDES)
    runner = _Runner(plan, engine, sink, device, padding, advance)
    with torch.inference_mode():
        for shard in shards:
            sink.begin(shard)
            for batch in plan.shards[shard]:
                runner.run(plan.batches[batch])
            sink.end()


class _Runner:
    """Runs batches, and remembers how many tokens were too many at once."""

    def __init__(
        self,
        plan: CapturePlan,
        engine: Engine,
        sink: Sink,
        device: torch.device,
        padding: str,
        advance: Advance,
    ) -> None:
        self._plan, self._engine, self._sink = plan, engine, sink
        self._device, self._padding, self._advance = device, padding, advance
        self._most: float = float("inf")
        self._hf = engine.model.hf
        width, most = sum(plan.widths.values()), plan.rows_per_batch
        self._block = Block(width * most, len(plan.widths) * len(plan.positions))

    def run(self, texts: Ints) -> None:
        """Run texts together, or in halves."""
        lengths = self._plan.texts.lengths[texts]
        longest = int(lengths.max())
        if len(texts) * longest > self._most and len(texts) > 1:
            self._halves(texts)
            return
        batch, rows = self._pass(texts)
        if rows is None:
            self._most = (len(texts) + 1) // 2 * longest
            logger.warning(
                "Out of memory at %d texts of %d tokens; going on with half as many at once. A "
                "smaller max_tokens_per_batch avoids this.",
                len(texts),
                longest,
            )
            del batch
            self._block.shrink()
            _release()
            self._halves(texts)
            return
        for (site, position), values in rows.items():
            self._sink.write(site, position, batch.picks[position].start, values)
        self._advance(len(texts), int(lengths.sum()))

    def _halves(self, texts: Ints) -> None:
        middle = (len(texts) + 1) // 2
        self.run(texts[:middle])
        self.run(texts[middle:])

    def _pass(self, texts: Ints) -> tuple[Batch, Rows | None]:
        """A forward pass; no rows if there was no memory for it.

        The error is let go of here: its traceback would keep the tensors of the failed pass alive.
        """
        batch = make_batch(self._plan, texts, self._device, self._padding)
        packed = self._plan.texts
        try:
            with announced(self._hf, packed.places[texts].tolist(), packed.prompts[texts].tolist()):
                return batch, _forward(self._plan, self._engine, batch, self._block)
        except RuntimeError as error:
            if not _no_memory(error):
                raise
            if len(texts) == 1:
                record, tokens = self._plan.texts.records[texts[0]], batch.ids.shape[1]
                raise ModelError(
                    f"There is not enough memory for record {record.id} alone ({tokens} tokens); "
                    "shorten it, or use a smaller model or another device."
                ) from error
        return batch, None


def _forward(plan: CapturePlan, engine: Engine, batch: Batch, block: Block) -> Rows:
    """One pass; the rows of every site and position, in the block."""
    block.clear()
    rows: Rows = {}
    # Blocks of a model that is spread over several devices read their own copy of the indices.
    picks: dict[torch.device, dict[str, Pick]] = {batch.ids.device: dict(batch.picks)}

    def read(site: Site, value: Tensor | Derived) -> None:
        if value.device not in picks:
            picks[value.device] = {n: p.to(value.device) for n, p in batch.picks.items()}
        for position, pick in picks[value.device].items():
            rows[site, position] = pick(value, block)

    engine.forward(batch.ids, batch.mask, plan.sites, read, left=batch.left)
    return rows


def _release() -> None:
    """Give back what the failed pass left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _no_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(s in text for s in _NO_MEMORY)
