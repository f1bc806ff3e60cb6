"""Slopes of a margin at every place at once: one backward pass per batch.

Nothing is added to a value that would change it: zeros are, and the slope of the margin in these
zeros is what is asked for. Added to what one receiver reads of the stream, they give the slope by
way of that receiver alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.stand_ins import StandIns, Values, values_of_run
from affectlens.circuits.interventions.base import Change, Intervention
from affectlens.circuits.interventions.head_receivers import HeadReceiver, heads_reading_otherwise
from affectlens.circuits.interventions.intervening import intervening
from affectlens.circuits.interventions.receivers import Read, Reading, Receiver, reading_otherwise
from affectlens.circuits.shared_start import apart as begun_apart
from affectlens.circuits.shared_start import may_begin_apart
from affectlens.circuits.side_by_side import Runs, prepare
from affectlens.circuits.tasks.pairs import Pair
from affectlens.core.errors import DataError
from affectlens.core.places import WritePoint
from affectlens.models.hooking.hooks import Writer, writing

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.tasks import Task, Text
    from affectlens.models.loading import LanguageModel


@dataclass(frozen=True, eq=False)
class Compared:
    """Some rows of a text, and what would take the place of their values.

    Attributes:
        runs: The rows.
        stands: What their values are held against.
    """

    runs: Runs
    stands: Values


@dataclass(frozen=True, eq=False)
class Against:
    """What values are held against: means, or, text by text, another run.

    Attributes:
        means: Of all units.
        pairs: Per emotion the pairs to run instead of the task's own texts, as
            `affectlens.circuits.tasks.pairs` makes them.
    """

    means: UnitMeans | None = None
    pairs: Mapping[str, Sequence[Pair]] = field(default_factory=dict[str, Sequence[Pair]])

    def __post_init__(self) -> None:
        if (self.means is None) == (not self.pairs):
            raise DataError("Values are held against means or against pairs of texts; give one.")

    def texts(self, task: Task, emotion: str) -> list[Text]:
        """Those to run.

        Raises:
            DataError: If there is none.
        """
        if self.means is not None:
            return [text for text in task.texts(emotion) if text]
        found = [pair.clean for pair in self.pairs.get(emotion, ())]
        if not found:
            raise DataError(f"There is no pair of texts for {emotion}; give more texts.")
        return found

    def compared(
        self, model: LanguageModel, task: Task, emotion: str, *, apart: bool = False
    ) -> Iterator[tuple[Compared, ...]]:
        """Text by text what to run.

        Args:
            model: The model.
            task: Whose texts they are.
            emotion: Whose margin.
            apart: Of pairs only what follows the tokens that both texts share, where the model can
                go on from there; these tokens' values do not differ.

        Raises:
            DataError: If there is no text, or a pair is of unequal length.
        """
        texts = self.texts(task, emotion)
        if self.means is not None:
            stands = StandIns.of(model, self.means).values
            for runs in prepare(model, task, emotion, texts):
                yield tuple(Compared(one, stands) for one in runs)
            return
        both = [text for pair in self.pairs[emotion] for text in (pair.clean, pair.corrupt)]
        _require_equal(self.pairs[emotion])
        ready = prepare(model, task, emotion, both)
        of = [list(zip(*two, strict=True)) for two in zip(ready[::2], ready[1::2], strict=True)]
        apart = apart and may_begin_apart([two for parts in of for two in parts])
        for parts in of:
            ways = [begun_apart(*two) if apart else two for two in parts]
            yield tuple(Compared(one, values_of_run(model, other)) for one, other in ways)


@dataclass(frozen=True, eq=False)
class Slopes:
    """Values and slopes of one pass, copies one after the other.

    Attributes:
        values: At each place, float32.
        slopes: Of the sum of the copies' margins.
        reads: By way of each receiver alone.
    """

    values: Mapping[WritePoint, Float[Tensor, "row pos width"]]
    slopes: Mapping[WritePoint, Float[Tensor, "row pos width"]]
    reads: Mapping[Receiver | HeadReceiver, Float[Tensor, "row pos d_model"]]


@dataclass(frozen=True, eq=False)
class Asked:
    """Where slopes are wanted, and what else happens in the pass.

    Attributes:
        at: Places.
        receivers: Readers of the stream.
        heads: Single heads as readers, with where their attention takes the stream from; that
            attention is then no reader as a whole.
        constant: Readers whose slope is dropped: what they do counts as given.
        changes: Made before values are seen.
    """

    at: Sequence[WritePoint] = ()
    receivers: Mapping[Receiver, Reading] = field(default_factory=dict[Receiver, Reading])
    heads: Mapping[HeadReceiver, Reading] = field(default_factory=dict[HeadReceiver, Reading])
    constant: Mapping[Receiver, Reading] = field(default_factory=dict[Receiver, Reading])
    changes: Sequence[Intervention] = ()


def slopes(model: LanguageModel, runs: Runs, asked: Asked, copies: int = 1) -> Slopes:
    """Run some rows forwards and backwards.

    Args:
        model: In `float32_gradients`.
        runs: The rows.
        asked: What is wanted.
        copies: How many of them.
    """
    values: dict[WritePoint, Tensor] = {}
    zeros: dict[WritePoint, Tensor] = {}
    read_zeros: dict[Receiver | HeadReceiver, Tensor] = {}

    def writer(at: WritePoint) -> Writer:
        def write(value: Tensor) -> Tensor:
            values[at] = value.detach().float()
            zeros[at] = torch.zeros_like(value, requires_grad=True)
            return value + zeros[at]

        return write

    def reader(receiver: Receiver | HeadReceiver) -> Read:
        def read(stream: Tensor) -> Tensor:
            read_zeros[receiver] = torch.zeros_like(stream, requires_grad=True)
            return stream + read_zeros[receiver]

        return read

    with torch.enable_grad(), ExitStack() as stack:
        # What is opened later runs first: changes are made, and then values are seen.
        stack.enter_context(writing(model.anatomy, {at: writer(at) for at in asked.at}))
        if asked.changes:
            stack.enter_context(intervening(model, asked.changes))
        if asked.receivers:
            reads = {receiver: reader(receiver) for receiver in asked.receivers}
            stack.enter_context(reading_otherwise(model, asked.receivers, reads))
        if asked.heads:
            of = {Receiver(one.layer, "attn"): reading for one, reading in asked.heads.items()}
            by_head = {one: reader(one) for one in asked.heads}
            stack.enter_context(heads_reading_otherwise(model, of, by_head))
        if asked.constant:
            given: dict[Receiver, Read] = {one: _given for one in asked.constant}
            stack.enter_context(reading_otherwise(model, asked.constant, given))
        total = runs(copies).sum()
        leaves = [*zeros.values(), *read_zeros.values()]
        found = torch.autograd.grad(total, leaves, materialize_grads=True)
    told = [slope.float() for slope in found]
    return Slopes(
        values,
        dict(zip(zeros, told, strict=False)),
        dict(zip(read_zeros, told[len(zeros) :], strict=True)),
    )


def integrated(
    model: LanguageModel,
    part: Compared,
    asked: Asked,
    moved: WritePoint,
    steps: int,
    *,
    max_tokens: int = 4096,
) -> Slopes:
    """Mean slopes while one place goes from what stands in for its values to the values.

    Args:
        model: In `float32_gradients`.
        part: The rows.
        asked: What is wanted.
        moved: The place.
        steps: Points on the way, evenly spaced; the last is the text as it is.
        max_tokens: Tokens at once.

    Returns:
        Slopes as means over the steps, values of the text as it is.
    """
    runs = part.runs
    most = max(1, max_tokens // runs.tokens)
    most = most if runs.most is None else min(most, runs.most)
    shares, nothing = torch.arange(1, steps + 1) / steps, torch.zeros((), device=model.device)
    sums: dict[WritePoint, Tensor] = {}
    reads: dict[Receiver | HeadReceiver, Tensor] = {}
    values: dict[WritePoint, Tensor] = {}
    for chunk in shares.split(most):
        way = Intervention(moved, _between(part.stands[moved], chunk))
        copies = len(chunk)
        found = slopes(model, runs, replace(asked, changes=[*asked.changes, way]), copies)
        values = {at: value[-runs.rows :] for at, value in found.values.items()}
        for at, slope in found.slopes.items():
            sums[at] = sums.get(at, nothing) + slope.unflatten(0, (copies, -1)).sum(0) / steps
        for reader, slope in found.reads.items():
            reads[reader] = reads.get(reader, nothing) + (
                slope.unflatten(0, (copies, -1)).sum(0) / steps
            )
    return Slopes(values, sums, reads)


def _between(stand: Float[Tensor, "#row #pos width"], shares: Float[Tensor, " copy"]) -> Change:
    """Each copy lies its share of the way from what stands in to the value."""

    def change(value: Tensor) -> Tensor:
        copies, start = value.unflatten(0, (len(shares), -1)), stand.to(value.device)
        way = shares.to(value.device)[:, None, None, None] * (copies - start)
        return (start + way).flatten(0, 1)

    return change


def _given(stream: Tensor) -> Tensor:
    return stream.detach()


def _require_equal(pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        sizes = [[(len(c), len(t)) for _, (c, t) in text] for text in (pair.clean, pair.corrupt)]
        if sizes[0] != sizes[1]:
            raise DataError(
                f"The rows of a pair have {sizes[0]} and {sizes[1]} tokens (context, rest); "
                "patching needs pairs of equal length in tokens."
            )
