"""Texts: a corpus as token ids, packed, with the tokens that each position reads.

All tokens lie in one array of four bytes each, so that a corpus of a hundred million tokens takes
400 MB and not twenty times that as Python numbers.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from affectlens.activations.positions import Ints, Position
from affectlens.core.artefact import fingerprint
from affectlens.core.errors import DataError, unknown
from affectlens.core.progress import progress
from affectlens.datasets.schema import Corpus, Record
from affectlens.models.chat.chats import TokenizedRow, render, tokenize
from affectlens.models.loading import LanguageModel
from affectlens.models.sinks import Sinks

OVERLONG: tuple[str, ...] = ("error", "truncate", "skip")
"""What can be done with texts longer than the context."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Texts:
    """Records ready to run, in corpus order.

    Attributes:
        records: Those that are read; fewer than the corpus has if texts were skipped.
        ids: Token ids of all texts, one after the other, int32.
        offsets: Where each text starts in ``ids``, int64, ``[n + 1]``.
        spans: Position name to the tokens it reads of each text, counted from the text's first
            token: ``[n, 2]`` (start, stop), int32, none of them empty. A mean leaves out those
            that are ``sinks``, of which neither the first nor the last is one.
        prompts: Tokens of each text before its reply, or all if it has none, int32, ``[n]``.
        places: Index of each record in the corpus, int32, ``[n]``.
        sinks: Which of ``ids`` are attention sinks, bool.
        counts: How many texts were ``truncated`` and ``skipped``.
        tokens_fingerprint: Of ``ids`` and ``offsets``; differs when template or tokenizer do.
        template_fingerprint: Of the chat template ("" if no text went through it).
        pad_id: Token that fills up short texts of a batch.
    """

    records: tuple[Record, ...]
    ids: Ints
    offsets: Ints
    spans: Mapping[str, Ints]
    prompts: Ints
    places: Ints
    sinks: Ints
    counts: Mapping[str, int]
    tokens_fingerprint: str
    template_fingerprint: str
    pad_id: int = 0

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def lengths(self) -> Ints:
        """Tokens of each text, int64, ``[n]``."""
        return np.diff(self.offsets)

    def read_by(self, position: Position, texts: Ints) -> tuple[Ints, Ints]:
        """Tokens that a position reads of some texts, and how many of each (at least one).

        Args:
            position: One that there are spans of.
            texts: Their indices, ``[m]``.

        Returns:
            Tokens counted from the first of their text, text after text; and ``[m]`` numbers.
        """
        spans = self.spans[position.name][texts].astype(np.int64)
        counts = spans[:, 1] - spans[:, 0]
        tokens = ranges(spans[:, 0], counts)
        if not position.spares_sinks:
            return tokens, counts
        kept = ~self.sinks[np.repeat(self.offsets[texts], counts) + tokens]
        return tokens[kept], np.add.reduceat(kept, before(counts), dtype=np.int64)

    def read_of(self, position: Position) -> Ints:
        """How many tokens a position reads of each text, int64, ``[n]``."""
        spans = self.spans[position.name].astype(np.int64)
        counts = spans[:, 1] - spans[:, 0]
        if not position.spares_sinks:
            return counts
        edges = (self.offsets[:-1, None] + spans).ravel()  # the last may lie behind all tokens
        spared = np.add.reduceat(np.append(self.sinks, False), edges, dtype=np.int64)[::2]
        return counts - spared


def before(counts: Ints) -> Ints:
    """Sum of all entries before each."""
    return np.cumsum(counts) - counts


def ranges(starts: Ints, counts: Ints) -> Ints:
    """All of ``start .. start + count``, one after the other."""
    return np.repeat(starts - before(counts), counts) + np.arange(int(counts.sum()))


def read_texts(
    model: LanguageModel, corpus: Corpus, positions: Sequence[Position], overlong: str = "error"
) -> Texts:
    """Render and tokenize a corpus.

    Args:
        model: Whose tokenizer and context length count.
        corpus: Records; those whose last message is no reply get the generation prompt.
        positions: What is going to be read.
        overlong: One of :data:`OVERLONG`.

    Raises:
        UnknownNameError: If there is no such policy.
        DataError: If a text is too long, empty or lacks what a position reads, if nothing is left,
            or if the tokenizer belongs to another model.
    """
    if overlong not in OVERLONG:
        raise unknown("policy for overlong texts", overlong, OVERLONG)
    ids, offsets, records = array("i"), array("q", [0]), list[Record]()
    prompts, places = array("i"), array("i")
    spans = {position.name: array("i") for position in positions}
    known = model.sinks if any(position.spares_sinks for position in positions) else Sinks()
    sinks = list[Ints]()
    counts, templated = {"truncated": 0, "skipped": 0}, False
    with progress("Tokenizing", len(corpus), unit="texts") as advance:
        for place, record in enumerate(corpus):
            advance(1)
            row, by_template = _row(model, record, overlong, counts)
            if row is None:
                continue
            templated |= by_template
            sinks.append(known.mask(row.ids))
            for position in positions:
                read = position.tokens(row.spans, sinks[-1], record.id)
                spans[position.name].extend((int(read[0]), int(read[-1]) + 1))
            prompts.append(row.spans["reply"][0] if "reply" in row.spans else len(row))
            places.append(place)
            ids.extend(row.ids)
            offsets.append(len(ids))
            records.append(record)
    if not records:
        raise DataError(f"Nothing to read: corpus {corpus.name} has no text that fits the context.")
    for done, n in counts.items():
        if n:
            logger.warning("%d of %d texts are longer than the context: %s.", n, len(corpus), done)
    packed, starts = np.frombuffer(ids, np.int32), np.frombuffer(offsets, np.int64)
    _check_vocabulary(model, packed)
    template: Any = getattr(model.tokenizer, "chat_template", None)
    return Texts(
        records=tuple(records),
        ids=packed,
        offsets=starts,
        spans={name: np.frombuffer(s, np.int32).reshape(-1, 2) for name, s in spans.items()},
        prompts=np.frombuffer(prompts, np.int32),
        places=np.frombuffer(places, np.int32),
        sinks=np.concatenate(sinks),
        counts=counts,
        tokens_fingerprint=fingerprint(packed.tobytes(), starts.tobytes()),
        template_fingerprint=_fingerprint(template, model.template_variables) if templated else "",
        pad_id=model.pad_id,
    )


def _fingerprint(template: Any, variables: Mapping[str, Any]) -> str:
    """Of a template and what it is told."""
    return fingerprint(template, dict(variables)) if variables else fingerprint(template)


def _row(
    model: LanguageModel, record: Record, overlong: str, counts: dict[str, int]
) -> tuple[TokenizedRow | None, bool]:
    """Tokens of one record (None if it is skipped), and whether a chat template wrote it."""
    limit, chat = model.context_length, record.chat
    prompted = chat[-1]["role"] not in ("assistant", "text")
    rendered = render(
        model.tokenizer,
        chat,
        add_generation_prompt=prompted,
        variables=model.template_variables,
    )
    row = tokenize(model.tokenizer, rendered)
    if len(row) > limit:
        if overlong == "error":
            raise DataError(
                f"Record {record.id} has {len(row)} tokens, the context of {model.name} {limit}; "
                "shorten it or leave it out (a capture does so with overlong='skip')."
            )
        counts["truncated" if overlong == "truncate" else "skipped"] += 1
        if overlong == "skip":
            return None, rendered.templated
        row = tokenize(model.tokenizer, rendered, max_length=limit)
    if not len(row):
        raise DataError(f"Record {record.id} has no tokens; drop it.")
    return row, rendered.templated


def _check_vocabulary(model: LanguageModel, ids: Ints) -> None:
    embedding: Any = model.hf.get_input_embeddings()
    vocabulary, highest = int(embedding.weight.shape[0]), int(ids.max())
    if highest >= vocabulary:
        raise DataError(
            f"Token id {highest} is outside the vocabulary of {model.name} ({vocabulary} tokens); "
            "the tokenizer belongs to another model."
        )
