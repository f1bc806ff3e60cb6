"""Recognition: asked how a writer feels, which label does the model find likely?

The answer is restricted to the label set, and the options are put in balanced orders, so that
neither a habit of answering nor a place in the list counts. Run on texts that name no feeling
(the corpus ``vignettes``), it cannot be solved by matching words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from affectlens.circuits.tasks.base import Floats, Row, TaskKind, Text, TextTask
from affectlens.core.artefact import fingerprint
from affectlens.core.errors import DataError, ModelError
from affectlens.models.chat.chats import Rendered, render, tokenize
from affectlens.models.generation.likelihood import continuation_nll

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus, Record
    from affectlens.models.loading import LanguageModel

OPENING = "The writer feels"
"""What the reply has begun with when the label is asked for."""


def question(text: str, options: Sequence[str]) -> str:
    """What the user says."""
    return (
        f"Text: {text}\n\nHow does the writer of the text feel? Choose one of: "
        f"{', '.join(options)}."
    )


def balanced_orders(options: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Orders in which each option stands at each place equally often, and after each other too.

    As many as there are options, twice as many if their number is odd.

    Source: Williams, "Experimental designs balanced for the estimation of residual effects of
    treatments" (1949).
    """
    n = len(options)
    zigzag = [i // 2 if i % 2 == 0 else n - (i + 1) // 2 for i in range(n)]
    rows = [[(place + shift) % n for place in zigzag] for shift in range(n)]
    if n % 2:
        rows += [row[::-1] for row in rows]
    return tuple(tuple(options[i] for i in row) for row in rows)


@dataclass(frozen=True)
class Recognised:
    """What a model makes of the texts.

    Attributes:
        shares: ``p(label | text)`` among the labels, mean over orders; item, context, label.
        coverage: Probability of all labels together, mean over orders; item and context. Where it
            is small, the model would rather have said something else.
    """

    shares: Float[Floats, "item emotion label"]
    coverage: Float[Floats, "item emotion"]

    @property
    def accuracy(self) -> float:
        """Share of texts whose own label is the likeliest."""
        n = self.shares.shape[1]
        return float((self.shares.argmax(axis=2) == np.arange(n)).mean())


@dataclass(frozen=True, eq=False)
class Recognition(TextTask):
    """The texts of the task, tokenised for one model.

    The margin of emotion ``e`` is the log-probability of its label after the item's text in ``e``,
    less the mean of the other labels', both summed over the label's tokens, mean over orders; the
    mean of the same over the item's texts in every emotion is its centre. What the label set holds
    of all probability cancels in it.

    Attributes:
        emotions: Contexts and labels.
        groups: One item each: the same setting or content in every emotion.
        scenarios: Of each item.
        rows: ``rows[item][context][order][label]``: token ids of prompt and label.
    """

    emotions: tuple[str, ...]
    groups: tuple[str, ...]
    scenarios: tuple[str, ...]
    rows: tuple[tuple[tuple[tuple[Row, ...], ...], ...], ...]
    name = "recognition"

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        corpus: Corpus,
        emotions: Sequence[str],
        *,
        labels: Mapping[str, str] | None = None,
        orders: int | None = None,
    ) -> Recognition:
        """Ask about the texts of complete groups; groups that lack an emotion are left out.

        Args:
            model: Whose template and tokenizer write the question; without a template it is a text
                that ends in the opening of the answer.
            corpus: Of texts or replies in groups, for example ``al.datasets.load("vignettes")``.
            emotions: The emotions; two or more.
            labels: Words that the model may answer with; default: the emotions' names.
            orders: Use only so many of `balanced_orders`, the first; balanced if all are used.

        Raises:
            DataError: If fewer than two groups are left, or two labels begin with all of another.
        """
        words = [(labels or {}).get(emotion, emotion) for emotion in emotions]
        if len(set(words)) < len(words):
            raise DataError(f"Two emotions have the same label among {', '.join(words)}.")
        by_group: dict[Any, dict[str, Record]] = {}
        for record in corpus:
            if record.emotion in emotions:
                by_group.setdefault(record.group_key, {})[str(record.emotion)] = record
        complete = [told for told in by_group.values() if len(told) == len(emotions)]
        if len(complete) < 2 or len(emotions) < 2:
            raise DataError(
                "Recognition needs two emotions and two groups or more with a text in each of "
                f"{', '.join(emotions)}; this corpus has {len(complete)}."
            )
        arranged = balanced_orders(words)[:orders]
        firsts = [told[emotions[0]] for told in complete]
        return cls(
            tuple(emotions),
            tuple(record.group for record in firsts),
            tuple(record.scenario for record in firsts),
            tuple(
                tuple(
                    asked_about(model, told[emotion].text, arranged, words) for emotion in emotions
                )
                for told in complete
            ),
        )

    @property
    def fingerprint(self) -> str:
        """Hash of emotions and rows."""
        return fingerprint(self.name, self.emotions, self.rows)

    def first(self, items: int) -> Recognition:
        """The task on its first groups only."""
        return Recognition(
            self.emotions, self.groups[:items], self.scenarios[:items], self.rows[:items]
        )

    def weighted(self, item: int, emotion: int) -> Text:
        """The emotion's label less the mean of the others, after its own text."""
        return self._contrast(item, emotion, emotion, 1.0)

    def constants(self, item: int, emotion: int) -> Text:
        """The same labels after every text of the item."""
        count = len(self.emotions)
        rows = [self._contrast(item, context, emotion, 1.0 / count) for context in range(count)]
        return tuple(row for part in rows for row in part)

    def recognised(self, model: LanguageModel) -> Recognised:
        """Shares of the labels, and what they cover together; whatever changes the model counts."""
        flat = [row for item in self.rows for asked in item for order in asked for row in order]
        nll = continuation_nll(model, [p for p, _ in flat], [t for _, t in flat])
        logs = -nll * np.array([len(told) for _, told in flat])
        n, orders = len(self.emotions), len(self.rows[0][0])
        each = np.exp(logs.reshape(len(self), n, orders, n))
        whole = each.sum(axis=3)
        return Recognised((each / whole[..., None]).mean(axis=2), whole.mean(axis=2))

    def _contrast(self, item: int, context: int, emotion: int, weight: float) -> Text:
        asked = self.rows[item][context]
        others = len(self.emotions) - 1
        # Mean log-probabilities times the number of tokens: the whole label's.
        return tuple(
            (len(row[1]) * weight / len(asked) * (1.0 if t == emotion else -1.0 / others), row)
            for order in asked
            for t, row in enumerate(order)
        )


def asked_about(
    model: LanguageModel, text: str, orders: Sequence[Sequence[str]], labels: Sequence[str]
) -> tuple[tuple[Row, ...], ...]:
    """Token ids of the question about a text and of each label, by order of the options."""
    return tuple(
        tuple(_row(model, question(text, order), label) for label in labels) for order in orders
    )


def _row(model: LanguageModel, user: str, label: str) -> Row:
    """Token ids up to the opening of the answer, and those of a label."""
    messages = [
        {"role": "user", "content": user},
        {"role": "assistant", "content": f"{OPENING} {label}"},
    ]
    chat = render(
        model.tokenizer,
        messages,
        add_generation_prompt=False,
        variables=model.template_variables,
    )
    start, end = chat.spans["reply"]
    spans = {"first": (start, start + len(OPENING)), "reply": (start, end)}
    row = tokenize(model.tokenizer, Rendered(chat.text, spans, chat.templated))
    begin, stop = row.spans["first"][1], row.spans["reply"][1]
    if begin >= stop:
        raise ModelError(
            f"The tokenizer of {model.name} gives the label {label!r} no token of its own; choose "
            "other labels."
        )
    return row.ids[:begin], row.ids[begin:stop]


RECOGNITION = TaskKind(
    "recognition",
    "asked how the writer feels, which label is likely? options in balanced orders",
    "vignettes",
    Recognition.of,
    options=("orders",),
)
