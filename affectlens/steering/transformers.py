"""Steering a Transformers model: hooks that know which row and which token they see.

Absolute positions come from the attention mask and the length of the cache at every call, never
from a counter, so prefill in one pass or in chunks, cached decoding and recomputing without a cache
all steer the same tokens. Padding on either side is not steered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from affectlens.core import DataError
from affectlens.steering.calls import Calls, cached_tokens, call_positions, repeat
from affectlens.steering.gates import EMBEDDINGS, GateTable
from affectlens.steering.positions import inside, interval, intervals
from affectlens.steering.table import SiteTable, SteeringTable

if TYPE_CHECKING:
    from affectlens.models.generation import GenerationSettings
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

    A batch of ``k·n`` rows under ``n`` requests gives each request ``k`` neighbouring rows, as
    ``num_return_sequences`` and beams do.

    Where a prompt ends is known in our own generation. In calls of the model itself it is told from
    the calls: a call without cached tokens is a prompt (unless it repeats the call before with one
    token more), so is a later call with several tokens; single tokens are generated. Pass
    ``prompt_lengths`` where that is not so: prompts that come in chunks, replies scored by teacher
    forcing.

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
    from affectlens.models.hooks import WritePoint, writing
    from affectlens.models.listeners import listening

    pack.require_model(model, force=force)
    many = isinstance(spec, (list, tuple))
    table = pack.table(cast("list[Any]", spec) if many else [spec])
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
    steerer = _Steerer(table, lengths, shared=not many)
    base = model.anatomy.base
    names = list(inspect.signature(base.forward).parameters)
    with ExitStack() as stack:
        before = steerer.before(names)
        stack.callback(base.register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.callback(base.register_forward_hook(steerer.after, always_call=True).remove)
        writers = {
            WritePoint(layer, point): steerer.writer(site)
            for (layer, point), site in table.sites.items()
        }
        for gates in table.gates:
            words = gates.layer == EMBEDDINGS
            place = WritePoint(0, "resid_pre") if words else WritePoint(gates.layer, "resid_post")
            writers[place] = steerer.gated(gates, writers.get(place))
        stack.enter_context(writing(model.anatomy, writers))
        stack.enter_context(listening(model.hf, steerer))
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
        options: Passed on to `affectlens.models.generation.generate_ids`.

    Returns:
        The generated tokens of each row.

    Raises:
        DataError: If the numbers of prompts and requests differ.
    """
    from affectlens.models.generation import generate_ids

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


class _Steerer:
    """Works out, before each forward pass, which rows and tokens to steer; then its writers do."""

    def __init__(
        self, table: SteeringTable, prompt_lengths: tuple[int, ...] | None, *, shared: bool
    ) -> None:
        self.table = table
        self.prompt_lengths = prompt_lengths
        self.shared = shared  # one request for all rows
        self.announced: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self.calls = Calls()
        self.batch: _Batch | None = None
        self.on: Bool[Tensor, "batch pos"] | None = None
        self.everywhere = False

    # The listener of our own generation.

    def untouched(self, row: int, length: int) -> int:
        """See `affectlens.models.listeners.Listener`."""
        place = self._table_row(row)
        if place == 0:
            return length
        return max(0, min(interval(self.table.positions[place], length)[0], length))

    def announce(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """See `affectlens.models.listeners.Listener`."""
        self.announced = None
        if rows:
            self.announced = tuple(self._table_row(row) for row in rows), tuple(lengths)

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
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            ids = given.get("input_ids")
            ids = ids if ids is not None else given["inputs_embeds"]
            positions = call_positions(given, ids)
            self.batch = self._batch(ids, positions, cached_tokens(given))
            on = inside(positions, self.batch.bounds) & (self.batch.rows != 0)[:, None]
            self.on = on if bool(on.any()) else None
            self.everywhere = self.on is not None and bool(on.all())

        return hook

    def after(self, *_: Any) -> None:
        """Hook that runs after the base model, also when it failed."""
        self.on = None

    def writer(self, site: SiteTable) -> Callable[[Tensor], Tensor | None]:
        """What changes the value at one place."""
        tables: dict[torch.device, SiteTable] = {}

        def write(hidden: Tensor) -> Tensor | None:
            on, batch = self.on, self.batch
            if on is None or batch is None:
                return None
            device = hidden.device
            if device not in tables:
                tables[device] = site.to(device)
            where = None if self.everywhere else on.to(device)
            return tables[device].apply(hidden, batch.rows.to(device), where)

        return write

    def gated(
        self, gates: GateTable, then: Callable[[Tensor], Tensor | None] | None
    ) -> Callable[[Tensor], Tensor | None]:
        """What narrows the tokens to steer by the gates, and then does what else is done there."""
        tables: dict[torch.device, GateTable] = {}

        def write(hidden: Tensor) -> Tensor | None:
            if self.on is None or self.batch is None:
                return None
            device = hidden.device
            if device not in tables:
                tables[device] = gates.to(device)
            may = tables[device].open(hidden, self.batch.rows.to(device))
            self.on = self.on & may.to(self.on.device)
            self.everywhere = False
            return None if then is None else then(hidden)

        return write

    def _batch(self, ids: Tensor, positions: Int[Tensor, "batch pos"], cached: int) -> _Batch:
        """Rows of the table and steered positions of the rows of a forward pass."""
        rows, lengths = self.announced or self._inferred(ids, positions, cached)
        if len(rows) != len(positions):
            raise DataError(
                f"The model was called with {len(positions)} rows while {len(rows)} were being "
                "generated; do not call it from within generation."
            )
        if self.batch is not None and self.batch.known == (rows, lengths):
            return self.batch
        bounds = intervals([self.table.positions[row] for row in rows], lengths, positions.device)
        index = torch.tensor(rows, dtype=torch.long, device=positions.device)
        return _Batch(index, bounds, (rows, lengths))

    def _inferred(
        self, ids: Tensor, positions: Int[Tensor, "batch pos"], cached: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        batch = len(positions)
        rows = repeat(self.table.rows, batch, "steering requests")
        if self.prompt_lengths is not None:
            return rows, repeat(self.prompt_lengths, batch, "prompt lengths")
        return rows, self.calls.prompt_lengths(ids, positions, cached)
