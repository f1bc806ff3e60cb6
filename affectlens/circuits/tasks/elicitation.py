"""Elicitation: told to reply in an emotion, does the model find such a reply more likely?

For models that follow instructions. The system prompt asks for an emotion or for none; what is
measured is the beginning of a matched reply in that emotion against the neutral one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affectlens.circuits.tasks.base import Row, TaskKind, Text, TextTask
from affectlens.core.artefact import fingerprint
from affectlens.core.emotions import NEUTRAL
from affectlens.core.errors import DataError, ModelError
from affectlens.core.sentences import first_sentence_end
from affectlens.datasets.authored import elicitation_prompt
from affectlens.datasets.leakage.affect_words import affect_words
from affectlens.models.chat.chats import Rendered, render, tokenize

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus, Record
    from affectlens.models.loading import LanguageModel

Cell = tuple[Row, Row]
"""The emotional reply and the neutral one, after one system prompt."""


@dataclass(frozen=True, eq=False)
class Elicitation(TextTask):
    """The texts of the task, tokenised for one model.

    ``m(e) = [s(e | asked for e) - s(neutral | asked for e)] - [the same | asked for none]`` with
    ``s`` the mean log-probability per token of a reply's first sentence; the last bracket is the
    centre.

    Attributes:
        emotions: Asked for, without neutral.
        groups: One item each: an event with matched replies.
        scenarios: Of each item.
        asked: ``asked[item][emotion]``, or None where the reply names a feeling.
        unasked: The same after the neutral system prompt.
    """

    emotions: tuple[str, ...]
    groups: tuple[str, ...]
    scenarios: tuple[str, ...]
    asked: tuple[tuple[Cell | None, ...], ...]
    unasked: tuple[tuple[Cell | None, ...], ...]
    name = "elicitation"
    remedy = "give more texts, or keep those that name a feeling with named=True"

    @classmethod
    def of(
        cls, model: LanguageModel, corpus: Corpus, emotions: Sequence[str], *, named: bool = False
    ) -> Elicitation:
        """Put the system prompts before the events of matched replies.

        Args:
            model: Whose template has a system role.
            corpus: Of replies with a neutral one in each group, for example
                ``al.datasets.load("replies").filter(role="tune")``.
            emotions: Those asked for.
            named: Keep replies whose first sentence names a feeling.

        Raises:
            ModelError: If the model has no chat template, or its template no system role.
            DataError: If fewer than two groups have every emotion and a neutral reply.
        """
        _require_system_role(model)
        wanted = (*(e for e in emotions if e != NEUTRAL), NEUTRAL)
        by_group: dict[Any, dict[str, Record]] = {}
        for record in corpus:
            if record.emotion in wanted and record.reply:
                by_group.setdefault(record.group_key, {})[str(record.emotion)] = record
        complete = [told for told in by_group.values() if len(told) == len(wanted)]
        if len(complete) < 2:
            raise DataError(
                "Elicitation needs two groups or more with a reply in each of "
                f"{', '.join(wanted)}; this corpus has {len(complete)}."
            )

        def cells(told: dict[str, Record], by: str | None) -> tuple[Cell | None, ...]:
            firsts = {e: _first(record) for e, record in told.items()}
            return tuple(
                None
                if not named and affect_words(firsts[e])
                else (
                    _row(model, told[e], by or e, firsts[e]),
                    _row(model, told[NEUTRAL], by or e, firsts[NEUTRAL]),
                )
                for e in wanted[:-1]
            )

        return cls(
            wanted[:-1],
            tuple(told[NEUTRAL].group for told in complete),
            tuple(told[NEUTRAL].scenario for told in complete),
            tuple(cells(told, None) for told in complete),
            tuple(cells(told, NEUTRAL) for told in complete),
        )

    @property
    def fingerprint(self) -> str:
        """Hash of emotions and rows."""
        return fingerprint(self.name, self.emotions, self.asked, self.unasked)

    def first(self, items: int) -> Elicitation:
        """The task on its first groups only."""
        return Elicitation(
            self.emotions,
            self.groups[:items],
            self.scenarios[:items],
            self.asked[:items],
            self.unasked[:items],
        )

    def weighted(self, item: int, emotion: int) -> Text:
        """The emotional reply less the neutral one, asked for the emotion."""
        return _contrast(self.asked[item][emotion])

    def constants(self, item: int, emotion: int) -> Text:
        """The same, asked for none."""
        return _contrast(self.unasked[item][emotion])


def _contrast(cell: Cell | None) -> Text:
    return () if cell is None else ((1.0, cell[0]), (-1.0, cell[1]))


def _require_system_role(model: LanguageModel) -> None:
    """A system text that ends up in the user's message, or nowhere, is no instruction."""
    advice = "use recognition or carry-over, which any model can do"
    if not getattr(model.tokenizer, "chat_template", None):
        raise ModelError(f"{model.name} has no chat template, so nobody can instruct it; {advice}.")
    chat = render(
        model.tokenizer,
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Good morning."}],
        add_generation_prompt=True,
        variables=model.template_variables,
    )
    between = "Be brief.\n\nGood morning."
    if "system" not in chat.spans or between in chat.text:
        raise ModelError(f"The chat template of {model.name} has no system role; {advice}.")


def _first(record: Record) -> str:
    reply = record.reply or ""
    return reply[: first_sentence_end(reply)].strip()


def _row(model: LanguageModel, record: Record, asked: str, first: str) -> Row:
    """Token ids up to the reply, and those of its first sentence."""
    messages = [
        {"role": "system", "content": elicitation_prompt(asked)},
        *({"role": m.role, "content": m.content} for m in record.messages[:-1]),
        {"role": "assistant", "content": first},
    ]
    chat = render(
        model.tokenizer,
        messages,
        add_generation_prompt=False,
        variables=model.template_variables,
    )
    row = tokenize(
        model.tokenizer, Rendered(chat.text, {"reply": chat.spans["reply"]}, chat.templated)
    )
    begin, stop = row.spans["reply"]
    return row.ids[:begin], row.ids[begin:stop]


ELICITATION = TaskKind(
    "elicitation",
    "told to reply in an emotion, does such a reply become likelier? needs a system role",
    "replies",
    Elicitation.of,
)
