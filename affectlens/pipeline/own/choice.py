"""What a user asks when a run is to be on texts of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core import DataError
from affectlens.core.emotions import LABEL_SETS
from affectlens.pipeline.corpus_choice import CorpusChoice, label_names

if TYPE_CHECKING:
    from affectlens.datasets import Corpus

ASK = "Reply in the tone that people call {label}."
"""System prompt of the prompted arm: it fits nouns (trust) and adjectives (polite) alike."""

FITTED, ENDPOINT, CLASSIFIER = "fitted", "endpoint", "classifier"
"""Kinds of judges: fitted on the corpus, behind an address, or a text classifier in a folder."""


@dataclass(frozen=True)
class OwnCorpus:
    """Texts of one's own, and how a run is to take them.

    Attributes:
        corpus: Which, with its columns and labels.
        neutral: The label that stands for no tone; it is called ``neutral`` from then on. A label
            of that name is it anyway.
        prompts: A corpus whose messages the arms answer; default: the prompts of the replies, or,
            of texts that answer nothing, the shipped ``events``.
        openers: A file with a ``text`` and an ``emotion`` per row: first sentences that the model
            goes on from; without it the model is not made to express the labels.
        judge: An address of an OpenAI-compatible server (``http://…``, ``#model`` behind it picks
            one), or a folder with a text classifier; default: one is fitted on the groups that give
            no directions.
        ask: System prompt of the prompted arm, with ``{label}`` in it.
        per_label: At most so many texts of each label (or groups, where they show all labels),
            spread evenly; None takes all.
    """

    corpus: CorpusChoice
    neutral: str | None = None
    prompts: str | None = None
    openers: str | None = None
    judge: str | None = None
    ask: str = ASK
    per_label: int | None = 150

    def __post_init__(self) -> None:
        if "{label}" not in self.ask:
            raise DataError(f"The system prompt {self.ask!r} needs {{label}} where the label goes.")
        if self.per_label is not None and self.per_label < 1:
            raise DataError(f"--per-label counts from 1 on, not {self.per_label}.")
        if self.judge_kind == CLASSIFIER and not (Path(str(self.judge)) / "config.json").is_file():
            raise DataError(
                f"--judge {self.judge} is neither an address (http://…) nor a folder with a text "
                "classifier (config.json and weights)."
            )

    @property
    def judge_kind(self) -> str:
        """One of the three kinds."""
        if self.judge is None:
            return FITTED
        return ENDPOINT if self.judge.startswith(("http://", "https://")) else CLASSIFIER

    def load(self) -> Corpus:
        """The records with one of the labels that are named, or all of them.

        Raises:
            DataError, UnknownNameError: As of `CorpusChoice.load`.
        """
        from affectlens.datasets.loaders.user_file import SUFFIXES

        labels = self.corpus.labels
        if Path(self.corpus.name).suffix.lower() in SUFFIXES:
            named = labels is not None and label_names(labels) is not None
            others = "drop" if named else None
            return replace(self.corpus, labels=labels or "any", others=others).load()
        if self.corpus.name != "goemotions" or labels in (None, "original", *LABEL_SETS):
            return self.corpus.load()
        whole = replace(self.corpus, labels="original").load()
        return whole.filter(emotion=label_names(labels) or whole.labels())
