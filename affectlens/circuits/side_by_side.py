"""A text of a task, run any number of times side by side, so that each copy may be changed.

A text has one context and a continuation in every tone. Written one after the other they are one
row: continuations see their context and themselves, by the attention mask, and are counted on from
it, by their positions. Then the context runs once instead of once per continuation. Families for
which masks and positions are not all there is (ALiBi, windows shorter than the text) run a row per
continuation: `prepare` holds one against the other on the longest texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.circuits.last_token_replay import copies_of
from affectlens.circuits.tasks.base import Row, Task, Text, TextTask
from affectlens.models.step import accepted

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

_LOGIT_ROWS = 512
_TOLERANCE = 1e-3
"""Of a margin, in its unit, that is put down to rounding when ways to run a text are compared."""


class Runs(Protocol):
    """Some rows of a text; what they make of its margin is a sum over them."""

    @property
    def rows(self) -> int:
        """Rows of the batch that one copy takes; copies follow each other."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of one copy, padding included."""
        ...

    @property
    def most(self) -> int | None:
        """Copies that may run at once; None: any number."""
        ...

    def __call__(self, copies: int = 1) -> Float[Tensor, " copy"]:
        """Their part of the margin in each copy, with gradients, on the CPU."""
        ...


@dataclass(frozen=True, eq=False)
class TokenRuns:
    """Rows of tokens; see `Runs`.

    Attributes:
        model: Which runs them.
        ids, places: Tokens and their positions.
        mask: ``[row, pos]``, or who sees whom, ``[1, 1, pos, pos]``.
        at: Row and position from which each told token is told.
        told: The tokens.
        weights: Of each token's log-probability in the margin.
        before: The cache of tokens that come before and have been run, in one copy; the mask tells
            of them, too.
    """

    model: LanguageModel
    ids: Int[Tensor, "row pos"]
    places: Int[Tensor, "row pos"]
    mask: Tensor
    at: Int[Tensor, "told 2"]
    told: Int[Tensor, " told"]
    weights: Float[Tensor, " told"]
    before: Any = None

    @property
    def rows(self) -> int:
        """See `Runs.rows`."""
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """See `Runs.tokens`."""
        return self.ids.numel()

    @property
    def most(self) -> int | None:
        """See `Runs.most`."""
        return None

    def keep(self) -> Any:
        """What the model keeps of one copy, for rows that go on from it."""
        return self._run(1, use_cache=True).past_key_values

    def __call__(self, copies: int = 1) -> Float[Tensor, " copy"]:
        """See `Runs.__call__`."""
        cache = copies_of(self.before, copies)  # the pass writes to it
        more = {"use_cache": False} if cache is None else {"past_key_values": cache}
        hidden = self._run(copies, **more).last_hidden_state
        first = torch.arange(copies, device=hidden.device) * self.rows
        row = (first[:, None] + self.at[:, 0]).flatten()
        pos, told = self.at[:, 1].repeat(copies), self.told.repeat(copies)
        each = list[Tensor]()
        for start in range(0, len(row), _LOGIT_ROWS):
            part = slice(start, start + _LOGIT_ROWS)
            logits = self.model.logits(hidden[row[part], pos[part]]).float()
            wanted = told[part].to(logits.device)
            each.append(-torch.nn.functional.cross_entropy(logits, wanted, reduction="none").cpu())
        return (torch.cat(each).unflatten(0, (copies, -1)) * self.weights).sum(1)

    def _run(self, copies: int, **options: Any) -> Any:
        base = self.model.anatomy.base
        if self.mask.ndim == 4:
            mask = self.mask.expand(copies, -1, -1, -1)
        else:
            mask = self.mask.repeat(copies, 1)
        return base(
            input_ids=self.ids.repeat(copies, 1),
            attention_mask=mask,
            **accepted(base, position_ids=self.places.repeat(copies, 1), **options),
        )


@dataclass(frozen=True, eq=False)
class ObjectiveRuns:
    """Rows of a task that has its own way from rows to a margin; one copy at a time."""

    model: LanguageModel
    task: Task
    emotion: str
    text: Text
    most: int | None = 1

    @property
    def rows(self) -> int:
        """See `Runs.rows`."""
        return len(self.text)

    @property
    def tokens(self) -> int:
        """See `Runs.tokens`."""
        return len(self.text) * max(len(context) + len(told) for _, (context, told) in self.text)

    def __call__(self, copies: int = 1) -> Float[Tensor, " copy"]:
        """See `Runs.__call__`."""
        assert copies == 1  # callers ask `most`
        return self.task.objective(self.model, self.emotion, self.text).cpu()[None]


@torch.no_grad()
def prepare(
    model: LanguageModel, task: Task, emotion: str, texts: Sequence[Text]
) -> list[tuple[Runs, ...]]:
    """Of each text what to run; its margin, but for a constant, is the sum over them.

    Args:
        model: The model, as it is: what changes it must come later.
        task: Whose texts they are.
        emotion: Whose margin.
        texts: None of them empty.
    """
    if not (isinstance(task, TextTask) and type(task).objective is TextTask.objective):
        return [_by_objective(model, task, emotion, text) for text in texts]
    # A window is a matter of the longest row, and all else of the longest text.
    by_row = max(texts, key=lambda text: max(len(c) + len(t) for _, (c, t) in text))
    by_text = max(texts, key=lambda text: sum(len(c) + len(t) for _, (c, t) in text))
    if all(_packs(model, text) for text in dict.fromkeys((by_row, by_text))):
        return [(packed(model, text),) for text in texts]
    return [tuple(row_runs(model, text)) for text in texts]


def agree(model: LanguageModel, found: float, wanted: float) -> bool:
    """Whether two ways to run a text give one margin, but for rounding."""
    bound = _TOLERANCE if model.dtype in (torch.float32, torch.float64) else 50 * _TOLERANCE
    return abs(found - wanted) <= bound * max(1.0, abs(wanted))


def packed(model: LanguageModel, text: Text) -> TokenRuns:
    """A text as one row, each context once; the last token of a continuation tells nothing."""
    ids, places, parent = list[int](), list[int](), list[int]()
    at, told, weights = list[int](), list[int](), list[float]()
    ends: dict[tuple[int, ...], int] = {}

    def write(tokens: Sequence[int], after: int) -> int:
        for token in tokens:
            parent.append(after)
            places.append(places[after] + 1 if after >= 0 else 0)
            ids.append(token)
            after = len(ids) - 1
        return after

    for weight, (context, continuation) in text:
        if context not in ends:
            ends[context] = write(context, -1)
        start = len(ids)
        write(continuation[:-1], ends[context])
        at += [ends[context], *range(start, len(ids))]
        told += continuation
        weights += [weight / len(continuation)] * len(continuation)
    sees = torch.zeros(len(ids), len(ids), dtype=torch.bool)
    for i, before in enumerate(parent):
        if before >= 0:
            sees[i] = sees[before]
        sees[i, i] = True
    device = model.device
    return TokenRuns(
        model=model,
        ids=torch.tensor([ids], device=device),
        places=torch.tensor([places], device=device),
        mask=_seen(model, sees).to(device),
        at=torch.tensor([[0, position] for position in at], device=device),
        told=torch.tensor(told, device=device),
        weights=torch.tensor(weights),
    )


def row_runs(model: LanguageModel, text: Text) -> list[TokenRuns]:
    """A text as a row per continuation, together where the model bears the padding."""
    return [_rows(model, part) for part in _together(model, text)]


def _rows(model: LanguageModel, text: Sequence[tuple[float, Row]]) -> TokenRuns:
    ids, mask = model.encode_batch([[*c, *t[:-1]] for _, (c, t) in text], side="right")
    device = model.device
    return TokenRuns(
        model=model,
        ids=ids,
        places=model.position_ids(mask),
        mask=mask,
        at=torch.tensor(
            [[row, len(c) - 1 + i] for row, (_, (c, t)) in enumerate(text) for i in range(len(t))],
            device=device,
        ),
        told=torch.tensor([token for _, (_, t) in text for token in t], device=device),
        weights=torch.tensor([weight / len(t) for weight, (_, t) in text for _ in t]),
    )


def _by_objective(
    model: LanguageModel, task: Task, emotion: str, text: Text
) -> tuple[ObjectiveRuns, ...]:
    return tuple(
        ObjectiveRuns(model, task, emotion, tuple(part)) for part in _together(model, text)
    )


def _together(model: LanguageModel, text: Text) -> list[Sequence[tuple[float, Row]]]:
    lengths = [len(context) + len(told) for _, (context, told) in text]
    if len(set(lengths)) == 1 or model.padding.upto(max(lengths)).right:
        return [text]
    return [[row] for row in text]


def _seen(model: LanguageModel, sees: Tensor) -> Tensor:
    """Who sees whom, as the model's attention takes it."""
    mask = sees[None, None]
    if getattr(model.hf.config, "_attn_implementation", None) != "eager":
        return mask
    lowest = torch.finfo(model.dtype).min
    return torch.zeros(mask.shape, dtype=model.dtype).masked_fill(~mask, lowest)


def _packs(model: LanguageModel, text: Text) -> bool:
    """Whether one row gives what a row per continuation gives."""
    wanted = sum(float(run()) for run in row_runs(model, text))
    try:
        found = float(packed(model, text)())
    except (TypeError, ValueError, RuntimeError, IndexError):  # a family with masks of its own
        return False
    return agree(model, found, wanted)
