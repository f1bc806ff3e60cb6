"""Steering a Transformers model: hooks that know which row and which token they see.

Absolute positions come from the attention mask and the length of the cache at every call, never
from a counter, so prefill in one pass or in chunks, cached decoding and recomputing without a cache
all steer the same tokens. Padding on either side is not steered.

Steering belongs to the block that asks for it, and to what is started inside it; other threads use
the same model unsteered (`affectlens.models.hooking.scopes`). Inside it nothing compiled runs
(`affectlens.models.hooking.compiled`).
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.core import DataError, WritePoint
from affectlens.steering.gates import EMBEDDINGS, GateTable
from affectlens.steering.hooking.prompt_ends import Calls, Pass, repeat
from affectlens.steering.positions import inside, interval, intervals
from affectlens.steering.table import SiteTable, SteeringTable

if TYPE_CHECKING:
    from affectlens.models.generation.generation import GenerationSettings
    from affectlens.models.loading import LanguageModel
    from affectlens.steering.pack import SteeringPack


@contextmanager
def steering(
    model: LanguageModel,
    pack: SteeringPack,
    spec: Any,
    *,
    prompt_lengths: Sequence[int] | None = None,
    force: bool = False,
) -> Generator[None, None, None]:
    """Steer every forward pass of a model inside the block, ``hf.generate`` and plain calls alike.

    Inside are the context that opened the block (see `contextvars`), asyncio tasks made in it, and
    threads and tasks of thread pools that are given the model in it
    (``Thread(target=model.hf.generate, ...)``); these stay inside to their end, also when the block
    is left meanwhile. Everybody else is not steered, nor are copies of the model; a function of
    one's own that a thread is to run opens the block itself, or is run by
    ``contextvars.copy_context().run``. A model that is compiled runs uncompiled inside: its
    compiled code would leave the steering out.

    A batch of ``k·n`` rows under ``n`` requests gives each request ``k`` neighbouring rows, as
    ``num_return_sequences`` and beams do.

    Where a prompt ends is known in our own generation and in ``hf.generate``, however that decodes.
    In plain calls of the model it is told from the calls: a call without cached tokens is a prompt
    (unless it repeats the call before with one token more), so is a later call with several tokens
    (with a warning); single tokens are generated. Pass ``prompt_lengths`` where that is not so:
    prompts that come in chunks, replies scored by teacher forcing.

    Args:
        model: What to steer.
        pack: Its vectors.
        spec: One request for all rows, or a list of requests, one per row.
        prompt_lengths: Tokens of the prompt of each row, without padding.
        force: Steer another model of the same shape all the same.

    Raises:
        MismatchError: If the pack is for another model.
        DataError: If the number of rows does not fit the number of requests.
    """
    from affectlens.models.generation.listeners import listening
    from affectlens.models.hooking.compiled import running_eagerly
    from affectlens.models.hooking.hf_generate import announcing
    from affectlens.models.hooking.hooks import hook_writers
    from affectlens.models.hooking.required import required_hooks
    from affectlens.models.hooking.scopes import opened, owned
    from affectlens.models.hooking.threads import carried_into_threads

    pack.require_model(model, force=force)
    many = isinstance(spec, (list, tuple))
    specs = cast("list[Any]", spec) if many else [spec]
    table = pack.table(specs)
    if not table.rows:
        raise DataError("The list of steering requests is empty; give one per row.")
    lengths = None if prompt_lengths is None else tuple(int(n) for n in prompt_lengths)
    if lengths is not None and many and len(lengths) != len(table.rows):
        raise DataError(
            f"There are {len(lengths)} prompt lengths for {len(table.rows)} steering requests; "
            "give one per request."
        )
    if not table.sites:
        yield
        return

    def made_by() -> dict[str, Any]:
        requests = [pack.resolve(one).fingerprint for one in specs]
        return {"pack": pack.fingerprint, "requests": requests}

    steerer = _Steerer(table, lengths, Calls(model.hf), shared=not many, made_by=made_by)
    base = model.anatomy.base
    writers = {place: steerer.writer(site) for place, site in table.sites.items()}
    for gates in table.gates:
        words = gates.layer == EMBEDDINGS
        place = WritePoint(0, "resid_pre") if words else WritePoint(gates.layer, "resid_post")
        writers[place] = steerer.gated(gates, writers.get(place))
    before = steerer.before(list(inspect.signature(base.forward).parameters))
    with opened(lasting=True) as (scope, held):
        held.enter_context(running_eagerly())
        held.enter_context(carried_into_threads())
        held.enter_context(announcing(model.hf))
        before = required_hooks(model.anatomy, scope, held)("the base", before)
        before, after = owned(base, scope, before), owned(base, scope, steerer.after)
        held.callback(base.register_forward_pre_hook(before, with_kwargs=True).remove)
        held.callback(base.register_forward_hook(after, always_call=True).remove)
        hook_writers(model.anatomy, writers, scope, held)
        with listening(model.hf, steerer):
            yield


def generate_steered(
    model: LanguageModel,
    pack: SteeringPack,
    prompts: Sequence[Sequence[int]],
    specs: Any,
    settings: GenerationSettings | None = None,
    *,
    force: bool = False,
    **options: Any,
) -> list[tuple[int, ...]]:
    """Generate with a request per prompt, all in the same batches.

    Args:
        model: The model.
        pack: Its vectors.
        prompts: Token ids. One prompt under several requests is given several times; what steering
            leaves alone of it is run once.
        specs: One request for all, or a list with one per prompt.
        settings: Of generation, the same for all.
        force: Steer another model of the same shape all the same.
        options: Passed on to `affectlens.models.generation.generation.generate_ids`.

    Returns:
        The generated tokens of each row.

    Raises:
        DataError: If the numbers of prompts and requests differ.
    """
    from affectlens.models.generation.generation import generate_ids

    if isinstance(specs, (list, tuple)) and len(cast("list[Any]", specs)) != len(prompts):
        raise DataError(
            f"There are {len(prompts)} prompts and {len(cast('list[Any]', specs))} steering "
            "requests; give one request per prompt, or one for all."
        )
    if not prompts:
        return []
    with steering(model, pack, specs, force=force):
        return generate_ids(model, prompts, settings, **options)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Whose rows a forward pass holds.

    Attributes:
        rows: Row of the table, per row of the batch.
        bounds: Steered positions, per row of the batch.
        known: What it was made from, to tell whether it still holds.
    """

    rows: Int[Tensor, " batch"]
    bounds: Int[Tensor, "batch 2"]
    known: tuple[tuple[int, ...], tuple[int, ...]]


class _Now(threading.local):
    """What a thread is about: whose rows it generates, and the pass it is in."""

    announced: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    batch: _Batch | None = None
    on: Bool[Tensor, "batch pos"] | None = None
    shares: Float[Tensor, "batch pos"] | None = None
    everywhere: bool = False


class _Steerer:
    """Works out, before each forward pass, which rows and tokens to steer; then its writers do."""

    def __init__(
        self,
        table: SteeringTable,
        prompt_lengths: tuple[int, ...] | None,
        calls: Calls,
        *,
        shared: bool,
        made_by: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.table = table
        self.prompt_lengths = prompt_lengths
        self.calls = calls
        self.shared = shared  # one request for all rows
        self.made_by = made_by
        self.now = _Now()

    # The listener of our own generation.

    def untouched(self, row: int, length: int) -> int:
        """See `affectlens.models.generation.listeners.Listener`."""
        place = self._table_row(row)
        if place == 0:
            return length
        return max(0, min(interval(self.table.positions[place], length)[0], length))

    def announce(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """See `affectlens.models.generation.listeners.Listener`."""
        self.now.announced = None
        if rows:
            self.now.announced = tuple(self._table_row(row) for row in rows), tuple(lengths)

    def identity(self, rows: int) -> Mapping[str, Any]:
        """See `affectlens.models.generation.listeners.Listener`."""
        if self.prompt_lengths is not None:
            raise DataError(
                "A capture knows where replies begin; open its steering block without "
                "prompt_lengths."
            )
        self._table_row(rows - 1)
        return self.made_by()

    def _table_row(self, row: int) -> int:
        if self.shared:
            return self.table.rows[0]
        if row >= len(self.table.rows):
            raise DataError(
                f"There are more prompts than the {len(self.table.rows)} steering requests; give "
                "one request per prompt, or one for all."
            )
        return self.table.rows[row]

    # Hooks.

    def before(self, names: Sequence[str]) -> Callable[..., None]:
        """Hook that runs before the base model.

        Args:
            names: Parameters of its ``forward``, in order.
        """

        def hook(_module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            given = Pass.of({**dict(zip(names, args, strict=False)), **kwargs})
            now = self.now
            now.batch = self._batch(given)
            on = inside(given.positions, now.batch.bounds) & (now.batch.rows != 0)[:, None]
            now.shares = self._shares(given, now.batch)
            if now.shares is not None:
                on = on & (now.shares != 0)
            some, all_ = torch.stack([on.any(), on.all()]).tolist()  # waits for the device once
            now.on = on if some else None
            now.everywhere = bool(some and all_)

        return hook

    def after(self, _module: Any, _args: Any, output: Any) -> None:
        """Hook that runs after the base model, also when it failed."""
        self.now.on = self.now.shares = None
        self.calls.returned(output)

    def writer(self, site: SiteTable) -> Callable[[Tensor], Tensor | None]:
        """What changes the value at one place."""
        tables: dict[torch.device, SiteTable] = {}

        def write(hidden: Tensor) -> Tensor | None:
            on, batch = self.now.on, self.now.batch
            if on is None or batch is None:
                return None
            device = hidden.device
            if device not in tables:
                tables[device] = site.to(device)
            where = None if self.now.everywhere else on.to(device)
            shares = None if self.now.shares is None else self.now.shares.to(device)
            return tables[device].apply(hidden, batch.rows.to(device), where, shares)

        return write

    def gated(
        self, gates: GateTable, then: Callable[[Tensor], Tensor | None] | None
    ) -> Callable[[Tensor], Tensor | None]:
        """What narrows the tokens to steer by the gates, and then does what else is done there."""
        tables: dict[torch.device, GateTable] = {}

        def write(hidden: Tensor) -> Tensor | None:
            now = self.now
            if now.on is None or now.batch is None:
                return None
            device = hidden.device
            if device not in tables:
                tables[device] = gates.to(device)
            may = tables[device].open(hidden, now.batch.rows.to(device))
            now.on = now.on & may.to(now.on.device)
            now.everywhere = False
            return None if then is None else then(hidden)

        return write

    def _shares(self, given: Pass, batch: _Batch) -> Float[Tensor, "batch pos"] | None:
        """How much of the steering each token gets; None if no request has a schedule."""
        if not self.table.schedules:
            return None
        _, lengths = batch.known
        first = torch.tensor(lengths, device=given.positions.device)
        tokens = given.positions - first[:, None]
        shares = torch.ones(tokens.shape, device=tokens.device)
        for row, schedule in self.table.schedules.items():
            mine = (batch.rows == row)[:, None]
            shares = torch.where(mine, schedule.shares(tokens), shares)
        return shares

    def _batch(self, given: Pass) -> _Batch:
        """Rows of the table and steered positions of the rows of a forward pass."""
        positions, last = given.positions, self.now.batch
        rows, lengths = self.now.announced or self._inferred(given)
        if len(rows) != len(positions):
            raise DataError(
                f"The model was called with {len(positions)} rows while {len(rows)} were being "
                "generated; do not call it from within generation."
            )
        if last is not None and last.known == (rows, lengths):
            return last
        bounds = intervals([self.table.positions[row] for row in rows], lengths, positions.device)
        index = torch.tensor(rows, dtype=torch.long, device=positions.device)
        return _Batch(index, bounds, (rows, lengths))

    def _inferred(self, given: Pass) -> tuple[tuple[int, ...], tuple[int, ...]]:
        batch = len(given.positions)
        rows = repeat(self.table.rows, batch, "steering requests")
        if self.prompt_lengths is not None:
            return rows, repeat(self.prompt_lengths, batch, "prompt lengths")
        return rows, self.calls.prompt_lengths(given)
