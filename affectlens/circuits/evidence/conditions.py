"""Many conditions at once: each row of a pass has other units whose values are others.

A condition is a set of units; what takes their values' place is the same for all conditions of a
call. What no condition changes is run once: the beginning that all tones share, and all blocks
below the lowest unit.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.circuits.evidence.items import Ids, Item, Question
from affectlens.circuits.interventions import Intervention, intervening, replace
from affectlens.circuits.last_token_replay import copies_of, repeated
from affectlens.circuits.replay import Seen, beginning_at, lowest, watching
from affectlens.core.places import WritePoint
from affectlens.models.anatomy.padding import TOLERANCE
from affectlens.models.generation.likelihood import reply_nll
from affectlens.models.step import accepted

if TYPE_CHECKING:
    from affectlens.models.anatomy.anatomy import BlockParts
    from affectlens.models.loading import LanguageModel

logger = logging.getLogger(__name__)

Floats = np.ndarray[Any, np.dtype[np.float64]]
Masks = Mapping[str, Bool[Tensor, "condition layer unit"]]
"""By kind of unit; a kind that is missing is left as it is."""

POINTS = {"neurons": "down_proj_in", "heads": "o_proj_in"}
_POSITIONS = 16384


@dataclass(frozen=True, eq=False)
class Replacement:
    """What takes the place of units' values.

    Attributes:
        values: By kind of unit, samples of all units of the model at one token; a single sample is
            a mean, or zero. From several, one is drawn for each token, the same for all units.
        seed: Of the draw.
    """

    values: Mapping[str, Float[Tensor, "sample layer width"]]
    seed: int = 0

    def at(self, kind: str, layer: int, item: int, places: range) -> Float[Tensor, "1 pos width"]:
        """The values at some positions of an item."""
        bank = self.values[kind][:, layer]
        if len(bank) == 1:
            return bank[None]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + item)
        drawn = torch.randint(len(bank), (_POSITIONS,), generator=generator)
        return bank[drawn[places.start : places.stop]][None]


@dataclass(frozen=True, eq=False)
class Conditions:
    """Runs conditions.

    Attributes:
        model: The model.
        put: What takes the units' values' place.
        everywhere: Whether this happens at every token, or from the first on that differs between
            the tones.
        tokens: At most so many in a pass, padded.
        replay: Whether blocks below the lowest unit are passed over.
    """

    model: LanguageModel
    put: Replacement
    everywhere: bool = False
    tokens: int = 4096
    replay: bool = True

    @classmethod
    def ready(
        cls, model: LanguageModel, put: Replacement, items: Sequence[Item], everywhere: bool = False
    ) -> Conditions:
        """With replay if the model's own result comes back when it begins in the middle."""
        made = cls(model, put, everywhere)
        found = next(
            (question, context)
            for item in items
            for question in item.questions
            for context, before in enumerate(question.contexts)
            if before is not None
        )
        return dataclasses.replace(made, replay=made.replays(*found))

    @torch.inference_mode()
    def replays(self, question: Question, context: int) -> bool:
        """Whether passing over the lower half of the blocks changes nothing."""
        before = question.contexts[context] or ()
        middle = self.model.n_layers // 2
        longest = max(map(len, question.told))
        if (
            not middle
            or len(before) < 2
            or not self.model.padding.upto(longest + len(before)).chunks
        ):
            return False
        if any(part.flat for part in self.model.anatomy.blocks):
            return False
        try:
            text = _Text(self, 0, before, question.told, question.start, torch.tensor([middle]))
            empty = {"heads": torch.zeros(2, self.model.n_layers, 1, dtype=torch.bool)}
            error = (text.run(empty, middle) + text.unchanged).abs().max()
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            logger.info("%s cannot begin in the middle: %s", self.model.name, error)
            return False
        bound = TOLERANCE.get(self.model.dtype, 0.02)  # what rounding does to rows beside others
        return float(error) < bound * float(text.unchanged.abs().max())

    @torch.inference_mode()
    def log_probs(
        self,
        number: int,
        question: Question,
        context: int,
        masks: Masks,
        advance: Callable[[int], None] = lambda _n: None,
    ) -> Float[Floats, "condition told"]:
        """Mean log-probability per token of all that is told after one context.

        Args:
            number: Of the item, for what is drawn.
            question: Of the item.
            context: Index of the emotion whose context is read.
            masks: The units of each condition.
            advance: Told how many conditions are done.
        """
        before = question.contexts[context]
        assert before is not None
        start = 0 if self.everywhere else min(question.start, len(before) - 1)
        longest = max(map(len, question.told))
        padding = self.model.padding.upto(len(before) + longest)
        first = lowest(masks)
        order = torch.argsort(first, descending=True, stable=True)
        found = np.full((len(order), len(question.told)), np.nan)
        if padding.chunks and padding.right and len(before) > 1:
            text = _Text(self, number, before, question.told, start, first)
            width = len(before) - start + len(question.told) * (1 + longest)
            run, size = text.run, max(1, self.tokens // width)
        else:
            whole = _Whole(self, number, before, question.told, start, padding.right)
            width = len(question.told) * (len(before) + longest)
            run, size = whole.run, max(1, self.tokens // width)
        for rows in order.split(size):
            chosen = {kind: mask[rows] for kind, mask in masks.items()}
            found[rows] = run(chosen, int(first[rows].min())).double().numpy()
            advance(len(rows))
        return found

    def changes(
        self, masks: Masks, number: int, places: range, times: int, skip: int = 0
    ) -> list[Intervention]:
        """The interventions at some positions of a pass, condition by condition ``times`` rows.

        Positions below ``skip`` within the pass are left alone.
        """
        made = list[Intervention]()
        for kind, mask in masks.items():
            for layer, part in enumerate(self.model.anatomy.blocks):
                if not bool(mask[:, layer].any()):
                    continue
                wide, values = _channels(
                    part, kind, mask[:, layer], self.put.at(kind, layer, number, places)
                )
                where = wide.repeat_interleave(times, dim=0)[:, None]
                if skip:
                    there = torch.arange(len(places)) >= skip
                    where = where & there[None, :, None]
                made.append(Intervention(WritePoint(layer, POINTS[kind]), replace(values), where))
        return made


def margins_of(
    log_probs: Sequence[Float[Floats, "condition told"]], item: Item
) -> Float[Floats, "condition emotion"]:
    """Weighted sums, one part of ``log_probs`` for each question; NaN where there is no margin."""
    parts = zip(log_probs, item.questions, strict=True)
    sums = np.sum([found @ question.weights.T for found, question in parts], axis=0)
    return np.where(np.array(item.known), sums, np.nan)


class _Text:
    """One context, run up to where the tones part; conditions go on from there."""

    def __init__(
        self,
        conditions: Conditions,
        number: int,
        before: Ids,
        told: Sequence[Ids],
        start: int,
        first: Tensor,
    ) -> None:
        self.of, self.number, self.before, self.told = conditions, number, before, told
        self.start, self.model = start, conditions.model
        self.base = self.model.anatomy.base
        self.cache: Any = None
        if start:
            self.cache = self._call(self.model.encode_batch([before[:start]])[0], 0, None, None)[1]
        layers = sorted({int(layer) for layer in first if layer > 0}) if conditions.replay else []
        self.below = self.between = Seen()
        self.clean: Any = None
        if layers:
            inside = [layer for layer in layers if layer < self.model.n_layers]
            cache = copies_of(self.cache, 1)
            with watching(self.model, inside) as self.between:
                cache = self._first(1, cache)
            self.clean = copies_of(cache, 1)
            with watching(self.model, inside) as self.below:
                hidden = self._rest(1, copies_of(cache, len(told)))
            self.unchanged = self._nll(hidden, 1)

    def run(self, masks: Masks, lowest: int) -> Float[Tensor, "condition told"]:
        """Log-probabilities under each condition; no unit lies below a layer."""
        count, n = len(next(iter(masks.values()))), len(self.told)
        if lowest >= self.model.n_layers and self.clean is not None:
            return -self.unchanged.expand(count, -1)
        layer = lowest if self.clean is not None and lowest < self.model.n_layers else 0
        split = len(self.before) - 1
        cache = copies_of(self.cache, count)
        if split > self.start:
            with self._inside(masks, range(self.start, split), 1, self.between, layer, count):
                cache = self._first(count, cache)
        if cache is not None:
            cache.batch_repeat_interleave(n)
            if layer:
                clean: Any = self.clean
                own = [repeated(one, count * n) for one in clean.layers[:layer]]
                cache.layers = [*own, *cache.layers[layer:]]
        end = split + 1 + max(map(len, self.told))
        with self._inside(masks, range(split, end), n, self.below, layer, count):
            hidden = self._rest(count, cache)
        return -self._nll(hidden, count)

    def _inside(
        self, masks: Masks, places: range, times: int, seen: Seen, layer: int, count: int
    ) -> ExitStack:
        stack = ExitStack()
        if layer:
            hidden = seen.inputs[layer].repeat(count, 1, 1)
            stack.enter_context(beginning_at(self.model, layer, hidden, seen.outputs))
        changes = self.of.changes(masks, self.number, places, times)
        if changes:
            stack.enter_context(intervening(self.model, changes))
        return stack

    def _first(self, rows: int, cache: Any) -> Any:
        """From the start to the last token but one of the context."""
        part = self.before[self.start : -1]
        if not part:
            return cache
        ids = self.model.encode_batch([part])[0].expand(rows, -1)
        return self._call(ids, self.start, cache, None)[1]

    def _rest(self, count: int, cache: Any) -> Tensor:
        """The last token of the context and what is told, for so many conditions."""
        rows = [[self.before[-1], *told] for told in self.told]
        ids, mask = self.model.encode_batch(rows, side="right")
        ids, mask = ids.repeat(count, 1), mask.repeat(count, 1)
        return self._call(ids, len(self.before) - 1, cache, mask)[0]

    def _call(self, ids: Tensor, done: int, cache: Any, mask: Tensor | None) -> tuple[Tensor, Any]:
        own = torch.ones_like(ids) if mask is None else mask
        full = torch.cat([own.new_ones(len(ids), done), own], dim=1)
        output: Any = self.base(
            input_ids=ids,
            attention_mask=full,
            past_key_values=cache,
            use_cache=True,
            **accepted(self.base, position_ids=self.model.position_ids(full)[:, done:]),
        )
        return output.last_hidden_state, output.past_key_values

    def _nll(self, hidden: Tensor, count: int) -> Float[Tensor, "condition told"]:
        told = list(self.told) * count
        found = reply_nll(self.model, hidden, told, [0] * len(told))
        return found.reshape(count, len(self.told))


@dataclass(frozen=True, eq=False)
class _Whole:
    """The same without a cache, every row from its first token on."""

    of: Conditions
    number: int
    before: Ids
    told: Sequence[Ids]
    start: int
    together: bool

    def run(self, masks: Masks, _lowest: int) -> Float[Tensor, "condition told"]:
        count, model = len(next(iter(masks.values()))), self.of.model
        parts = [list(self.told)] if self.together else [[told] for told in self.told]
        found = list[Tensor]()
        for told in parts:
            rows = [[*self.before, *one] for one in told] * count
            ids, mask = model.encode_batch(rows, side="right")
            places = range(ids.shape[1])
            changes = self.of.changes(masks, self.number, places, len(told), self.start)
            base = model.anatomy.base
            at = accepted(base, position_ids=model.position_ids(mask))
            with ExitStack() as stack:
                if changes:
                    stack.enter_context(intervening(model, changes))
                hidden = base(input_ids=ids, attention_mask=mask, **at).last_hidden_state
            replies = list(told) * count
            nll = reply_nll(model, hidden, replies, [len(self.before) - 1] * len(replies))
            found.append(-nll.reshape(count, len(told)))
        return torch.cat(found, dim=1)


def _channels(
    part: BlockParts, kind: str, mask: Bool[Tensor, "condition unit"], values: Tensor
) -> tuple[Bool[Tensor, "condition own"], Float[Tensor, "1 pos own"]]:
    """Units as channels of a layer's own place, narrower than the widest layer's perhaps."""
    if kind == "neurons":
        return mask[:, : part.d_mlp], values[..., : part.d_mlp]
    own = values.unflatten(-1, (mask.shape[1], -1))[..., : part.n_heads, : part.d_head]
    return mask[:, : part.n_heads].repeat_interleave(part.d_head, dim=1), own.flatten(-2)
