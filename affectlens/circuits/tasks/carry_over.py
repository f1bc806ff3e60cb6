"""Carry-over: having begun a reply in a tone, does the model go on in it?

No judge listens and no direction is read: the task is what the model itself finds likely. The
context is a prompt and the first sentence of a matched reply in one tone, the continuation the
second sentence of the reply in another. Continuations that name a feeling are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from affectlens.circuits.tasks.base import Floats, Row, TaskKind, Text, TextTask
from affectlens.core.artefact import fingerprint
from affectlens.core.errors import DataError
from affectlens.core.sentences import first_sentence_end
from affectlens.datasets.leakage.affect_words import affect_words
from affectlens.models.chat.chats import Rendered, render, tokenize
from affectlens.models.generation.likelihood import continuation_nll

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus, Record
    from affectlens.models.loading import LanguageModel


@dataclass(frozen=True, eq=False)
class CarryOver(TextTask):
    """The texts of the task, tokenised for one model.

    Attributes:
        emotions: Order of contexts and continuations.
        groups: One content each, told in every tone.
        scenarios: Of each group: what is drawn as a whole when intervals are made.
        rows: ``rows[group][context][continuation]``: token ids of both, or None where the
            continuation names a feeling.
    """

    emotions: tuple[str, ...]
    groups: tuple[str, ...]
    scenarios: tuple[str, ...]
    rows: tuple[tuple[tuple[Row | None, ...], ...], ...]
    name = "carry_over"
    remedy = "give more texts, or keep those that name a feeling with named=True"

    @classmethod
    def of(
        cls, model: LanguageModel, corpus: Corpus, emotions: Sequence[str], *, named: bool = False
    ) -> CarryOver:
        """Cut matched replies into first sentence and rest.

        Groups that lack a tone, or of which a reply has one sentence only, are left out.

        Args:
            model: Whose template and tokenizer write the texts.
            corpus: Of replies, for example ``al.datasets.load("replies").filter(role="tune")``.
            emotions: The tones; two or more.
            named: Keep continuations that name a feeling.

        Raises:
            DataError: If fewer than two groups are left.
        """
        by_group: dict[Any, dict[str, Record]] = {}
        for record in corpus:
            if record.emotion is not None and record.emotion in emotions and record.reply:
                by_group.setdefault(record.group_key, {})[record.emotion] = record
        names, scenarios, rows = list[str](), list[str](), list[Any]()
        for replies in by_group.values():
            if len(replies) < len(emotions):
                continue
            cuts = {e: _cut(replies[e].reply or "") for e in emotions}
            if not all(rest for _, rest in cuts.values()):
                continue
            table = tuple(
                tuple(
                    None
                    if not named and affect_words(cuts[told][1])
                    else _row(model, replies[begun], cuts[begun][0], cuts[told][1])
                    for told in emotions
                )
                for begun in emotions
            )
            first = replies[emotions[0]]
            names.append(first.group)
            scenarios.append(first.scenario)
            rows.append(table)
        if len(rows) < 2:
            raise DataError(
                f"Carry-over needs two groups or more with replies of two sentences in each of "
                f"{', '.join(emotions)}; this corpus has {len(rows)}."
            )
        return cls(tuple(emotions), tuple(names), tuple(scenarios), tuple(rows))

    @property
    def fingerprint(self) -> str:
        """Hash of emotions and rows."""
        return fingerprint(self.emotions, self.rows)

    def first(self, items: int) -> CarryOver:
        """The task on its first groups only."""
        return CarryOver(
            self.emotions, self.groups[:items], self.scenarios[:items], self.rows[:items]
        )

    def weighted(self, item: int, emotion: int) -> Text:
        """The tone's own continuation, less the mean of the others', after its own beginning."""
        return self._contrast(item, emotion, emotion, 1.0)

    def constants(self, item: int, emotion: int) -> Text:
        """The same continuations after every beginning."""
        count = len(self.emotions)
        rows = [self._contrast(item, context, emotion, 1.0 / count) for context in range(count)]
        return tuple(row for part in rows for row in part)

    def _contrast(self, item: int, context: int, emotion: int, weight: float) -> Text:
        line = self.rows[item][context]
        own = line[emotion]
        others = [row for t, row in enumerate(line) if t != emotion and row is not None]
        if own is None or not others:
            return ()
        return ((weight, own), *((-weight / len(others), row) for row in others))

    def scores(
        self, model: LanguageModel, contexts: Sequence[str] | None = None
    ) -> Float[Floats, "group context continuation"]:
        """Mean log-probability per token of each continuation after each context, in nats.

        Whatever changes the model (`intervening`, steering) counts.

        Args:
            model: The one the task was tokenised for.
            contexts: Only these, the others are NaN; default: all.

        Returns:
            NaN where there is no continuation.
        """
        wanted = self.emotions if contexts is None else tuple(contexts)
        rows = {
            (g, c, t): row
            for g, table in enumerate(self.rows)
            for c, line in enumerate(table)
            if self.emotions[c] in wanted
            for t, row in enumerate(line)
            if row is not None
        }
        told = list(rows.values())
        nll = continuation_nll(model, [row[0] for row in told], [row[1] for row in told])
        found = np.full((len(self), len(self.emotions), len(self.emotions)), np.nan)
        for place, value in zip(rows, nll, strict=True):
            found[place] = -value
        return found


def margins(
    scores: Float[Floats, "group context continuation"],
    centre: Float[Floats, "group context continuation"] | None = None,
) -> Float[Floats, "group emotion"]:
    """How much more a tone is gone on with than the others, in nats per token.

    ``a(c, t) = s(c, t) - mean over contexts of s(·, t)`` takes away how likely a continuation is at
    all; ``m(e) = a(e, e) - mean over t ≠ e of a(e, t)``. Zero if the context tells nothing.

    Args:
        scores: Of `CarryOver.scores`.
        centre: Scores whose means over contexts are taken away; default: the same. Those of the
            model as it is let one context be measured alone.

    Returns:
        NaN where an emotion's own continuation, or all others, are missing.
    """
    base = scores if centre is None else centre
    with np.errstate(invalid="ignore"):
        lifted = scores - base.mean(axis=1, keepdims=True)
    n = scores.shape[1]
    own = lifted[:, np.arange(n), np.arange(n)]
    others = np.where(np.eye(n, dtype=bool), np.nan, lifted)
    told = ~np.isnan(others)
    count = told.sum(axis=2)
    sums = np.where(told, others, 0.0).sum(axis=2)
    return own - np.divide(sums, count, out=np.full_like(sums, np.nan), where=count > 0)


def _cut(reply: str) -> tuple[str, str]:
    end = first_sentence_end(reply)
    return reply[:end].strip(), reply[end:].strip()


def _row(model: LanguageModel, record: Record, first: str, rest: str) -> Row:
    """Token ids up to the end of the first sentence, and those of the rest."""
    messages = [{"role": m.role, "content": m.content} for m in record.messages[:-1]]
    messages.append({"role": "assistant", "content": f"{first} {rest}"})
    chat = render(
        model.tokenizer,
        messages,
        add_generation_prompt=False,
        variables=model.template_variables,
    )
    start, end = chat.spans["reply"]
    spans = {"first": (start, start + len(first)), "reply": (start, end)}
    row = tokenize(model.tokenizer, Rendered(chat.text, spans, chat.templated))
    begin, stop = row.spans["first"][1], row.spans["reply"][1]
    return row.ids[:begin], row.ids[begin:stop]


CARRY_OVER = TaskKind(
    "carry_over",
    "having begun a reply in a tone, does the model go on in it?",
    "replies",
    CarryOver.of,
)
