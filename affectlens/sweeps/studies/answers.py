"""What a model answers to the texts of a corpus, under a system prompt; kept once generated."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from affectlens.core.errors import DataError
from affectlens.core.progress import progress
from affectlens.core.settings import identity
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.sweeps.kept import KeptRows, key_of

if TYPE_CHECKING:
    from affectlens.models import LanguageModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answering:
    """How replies are generated.

    Attributes:
        tokens: Longest reply.
        repetition_penalty: See `affectlens.models.generation.GenerationSettings`.
        temperature: 0 chooses the likeliest token.
        seed: Of sampling.
    """

    tokens: int = 64
    repetition_penalty: float = 1.1
    temperature: float = 0.0
    seed: int = 0


def user_text(record: Record) -> str:
    """What the user says: the plain text, or the last message of the user.

    Raises:
        DataError: If there is none.
    """
    for message in reversed(record.messages):
        if message.role in ("text", "user"):
            return message.content
    raise DataError(f"Record {record.id} has no message of a user to answer; leave it out.")


def answered(
    model: LanguageModel, corpus: Corpus, system: str | None, how: Answering, kept: KeptRows
) -> Corpus:
    """The texts as messages of a user, each with the model's reply; those it leaves empty are gone.

    Labels, groups and splits stay those of the texts.

    Args:
        model: Who answers.
        corpus: Whose texts are said to it.
        system: System prompt; None for what the chat template does without one.
        how: Of the replies.
        kept: Where replies lie that are there already.

    Raises:
        DataError: If every reply is empty, or a text too long.
    """
    who = [model.fingerprint, model.text_fingerprint]
    key = key_of(answers=[*who, corpus.fingerprint, system, identity(how)])
    rows = kept.get(key)
    if rows is None:
        said = _generated(model, [user_text(record) for record in corpus], system, how)
        rows = [
            {"id": record.id, "reply": reply} for record, reply in zip(corpus, said, strict=True)
        ]
        kept.put(key, list(rows))
    replies = {str(row["id"]): str(row["reply"]) for row in rows}
    records = tuple(
        behind(record, replies[record.id], system) for record in corpus if replies[record.id]
    )
    if not records:
        raise DataError(f"{model.name} answers none of the texts of {corpus.name}.")
    if len(records) < len(corpus):
        logger.warning("%d replies are empty and play no part.", len(corpus) - len(records))
    return replace(corpus, design="replies", records=records)


def behind(record: Record, reply: str, system: str | None) -> Record:
    """A record's text as a message of a user, and a reply to it."""
    opening = (Message("system", system),) if system else ()
    turns = (*opening, Message("user", user_text(record)), Message("assistant", reply))
    return replace(record, messages=turns)


def _generated(
    model: LanguageModel, texts: list[str], system: str | None, how: Answering
) -> list[str]:
    from affectlens.models.generation.generation import (
        GenerationSettings,
        encode_prompt,
        generate_ids,
    )

    settings = GenerationSettings(
        max_new_tokens=how.tokens,
        repetition_penalty=how.repetition_penalty,
        temperature=how.temperature,
        seed=how.seed,
    )
    prompts = [encode_prompt(model, text, system) for text in texts]
    with progress("Generating replies", len(prompts)) as advance:
        found = generate_ids(model, prompts, settings, on_progress=advance)
    return [
        str(model.tokenizer.decode(list(ids), skip_special_tokens=True)).strip() for ids in found
    ]
