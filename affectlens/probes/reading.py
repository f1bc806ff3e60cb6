"""Reading texts with a probe: probabilities of every token and of every text, in one pass.

The model runs as in a capture, to the probe's block and no further; of its activations nothing is
kept but the scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.activations.capture import Prepared, prepare
from affectlens.activations.positions import Position
from affectlens.activations.settings import PassOptions, PassSettings
from affectlens.activations.streaming.sum_sinks import RowIndex
from affectlens.core.display import Displayed
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.core.settings import from_options
from affectlens.datasets.schema import Corpus, Message, Record

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel
    from affectlens.probes.probe import Probe

EVERY = "all"


@dataclass(frozen=True, eq=False)
class Reading:
    """One text as a probe reads it.

    Attributes:
        id: Of its record.
        text: What was read.
        tokens: Its tokens as text; joined, they are the row that the model saw.
        by_token: Probabilities that each token shows alone. They are calibrated as the text's are,
            on whole texts: a token's say how the probe sees it, not how often it is right.
        of_text: Calibrated probabilities of the text.
        labels: Labels that hold the true one as often as asked; None if none were asked for.
    """

    id: str
    text: str
    tokens: tuple[str, ...]
    by_token: Float[np.ndarray, "token class"]
    of_text: Float[np.ndarray, " class"]
    labels: tuple[str, ...] | None


@dataclass(frozen=True, eq=False, repr=False)
class Readings(Displayed):
    """Texts as a probe reads them.

    Attributes:
        classes: Order of the probabilities.
        position: Which tokens the text's probabilities come from.
        texts: In the order given.
    """

    classes: tuple[str, ...]
    position: str
    texts: tuple[Reading, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, i: int) -> Reading:
        return self.texts[i]

    def brief(self) -> dict[str, object]:
        """Texts, classes, position."""
        return {
            "texts": len(self),
            "classes": ", ".join(self.classes),
            "position": self.position,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """Of each text its likeliest class and all probabilities."""
        return [
            {
                "id": one.id,
                "text": one.text,
                "class": self.classes[int(one.of_text.argmax())],
                **({} if one.labels is None else {"labels": ", ".join(one.labels)}),
                **dict(zip(self.classes, one.of_text.tolist(), strict=True)),
            }
            for one in self.texts
        ]


def read(
    model: LanguageModel,
    probe: Probe,
    texts: str | Iterable[str] | Corpus,
    *,
    position: str | None = None,
    coverage: float | None = None,
    force: bool = False,
    **options: Unpack[PassOptions],
) -> Readings:
    """Read texts.

    Args:
        model: The one the probe was fitted on.
        probe: From `affectlens.fit_probe`, `Probe.of` or `Probe.load`.
        texts: Plain texts, or a corpus.
        position: Where a text's probabilities are read; default: where the probe was fitted, of
            plain texts the text in the place of the reply.
        coverage: If given, the labels of each text that hold the true one so often.
        force: Read another model of the same width all the same.
        options: See `affectlens.activations.settings.PassSettings`.

    Raises:
        DataError: If there is no text, or one is too short or too long to be read.
        MismatchError: If the probe was fitted on another model.
        UnknownNameError: If the position or an option does not exist.
    """
    settings = from_options(PassSettings, options, "read")
    probe.provenance.require_model(model.fingerprint, model.name, force=force)
    if isinstance(texts, str):
        texts = [texts]
    corpus = texts if isinstance(texts, Corpus) else plain_corpus(texts)
    where = position or _suited(probe.position, corpus.design)
    if probe.reads_tokens == Position.parse(where).pooled:
        rows = "every token" if probe.reads_tokens else "one row"
        raise DataError(f"This {probe.kind} probe reads {rows} of a text, which {where} is not.")
    asked = dict.fromkeys([EVERY, where])
    prepared = prepare(model, corpus, sites=probe.site, positions=asked, settings=settings)
    sink = _ScoreSink(prepared, probe, where)
    prepared.run(sink, description="Reading texts")
    by_token, of_text = sink.in_corpus_order()
    sets = None if coverage is None else probe.label_sets(of_text, coverage)
    return _told(model, prepared, probe, (where, by_token, of_text, sets))


def plain_corpus(texts: Iterable[str]) -> Corpus:
    """Texts as a corpus to read.

    Raises:
        DataError: If there is none.
    """
    records = tuple(
        Record(str(i), (Message("text", text),), None, None, str(i), "", "test")
        for i, text in enumerate(texts)
    )
    if not records:
        raise DataError("There is no text to read.")
    return Corpus("texts", "texts", records)


def _suited(position: str, design: str) -> str:
    """Where to read texts of a design: a reply's probe reads of a plain text the text."""
    if design != "texts":
        return position
    own = Position.parse(position)
    if own.part in ("", "text"):
        return position
    if own.what == "last":
        return "last"
    return position.replace(f":{own.part}", ":text", 1)


class _ScoreSink:
    """Takes rows and keeps what the probe says of them; see `affectlens.activations` for sinks."""

    def __init__(self, prepared: Prepared, probe: Probe, where: str) -> None:
        plan, many = prepared.plan, len(probe.classes)
        self._plan, self._probe, self._where = plan, probe, where
        self._index = RowIndex.of_plan(plan, where)
        self.token = torch.empty(plan.rows[EVERY], many)
        self.text = torch.empty(len(plan.texts), many)

    def begin(self, shard: int) -> None:
        """Nothing to prepare."""

    def write(self, site: Site, position: str, start: int, values: Tensor) -> None:
        """Score rows; all tokens of a text come in one batch."""
        del site
        rows = values.float()
        if position == EVERY:
            self.token[start : start + len(rows)] = self._probe.token_scores(rows).cpu()
        if position == self._where and self._probe.reads_tokens:
            self._attend(start, rows)
        elif position == self._where:
            self.text[start : start + len(rows)] = self._probe.scores(rows).cpu()

    def end(self) -> None:
        """Nothing is left over."""

    def in_corpus_order(self) -> tuple[Tensor, Tensor]:
        """Scores of all tokens, and of all texts."""
        token = self.token[torch.from_numpy(self._plan.stored(EVERY))]
        if self._probe.reads_tokens:
            return token, self.text
        return token, self.text[torch.from_numpy(self._plan.stored(self._where))]

    def _attend(self, start: int, rows: Tensor) -> None:
        owner, number = self._index.of_rows(start, len(rows))
        # The first token of a row is a sink, which the probe was fitted without.
        kept = self._index.of_corpus(number)[1] > 0
        names, texts = np.unique(owner[kept], return_inverse=True)
        lone = np.setdiff1d(owner, names)
        if len(lone):
            record = self._plan.texts.records[int(lone[0])]
            raise DataError(
                f"Record {record.id} has nothing but its first token, an attention sink; drop it."
            )
        scores = self._probe.scores(rows[torch.from_numpy(kept)], torch.from_numpy(texts))
        self.text[torch.from_numpy(names)] = scores.cpu()


def _told(
    model: LanguageModel,
    prepared: Prepared,
    probe: Probe,
    found: tuple[str, Tensor, Tensor, Bool[Tensor, "text class"] | None],
) -> Readings:
    where, by_token, of_text, sets = found
    texts = prepared.plan.texts
    token_p = probe.probabilities(by_token).numpy()
    text_p = probe.probabilities(of_text).numpy()
    pieces = _Pieces(model)
    told = list[Reading]()
    for i, record in enumerate(texts.records):
        span = slice(int(texts.offsets[i]), int(texts.offsets[i + 1]))
        labels = None
        if sets is not None:
            labels = tuple(n for n, own in zip(probe.classes, sets[i], strict=True) if own)
        told.append(
            Reading(
                id=record.id,
                text=record.text,
                tokens=pieces(texts.ids[span].tolist()),
                by_token=token_p[span],
                of_text=text_p[i],
                labels=labels,
            )
        )
    return Readings(probe.classes, where, tuple(told))


class _Pieces:
    """Tokens as text, each looked up once."""

    def __init__(self, model: LanguageModel) -> None:
        self._tokenizer: Any = model.tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, ids: Sequence[int]) -> tuple[str, ...]:
        for token in ids:
            if token not in self._known:
                self._known[token] = str(self._tokenizer.decode([token]))
        return tuple(self._known[token] for token in ids)
