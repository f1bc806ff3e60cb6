"""Texts in which there is something to read."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus
    from affectlens.models.loading import LanguageModel

logger = logging.getLogger(__name__)


def readable(model: LanguageModel, corpus: Corpus) -> Corpus:
    """The records that are more than attention sinks; how many are left out is told in the log.

    Corpora of comments have texts of one token. As the first of its row it is a sink, whatever it
    says, and its activations are like those of any other first token.
    """
    rows = [model.encode_chat(r.chat, add_generation_prompt=False).ids for r in corpus]
    kept = [r for r, ids in zip(corpus, rows, strict=True) if not model.sinks.mask(ids).all()]
    if len(kept) < len(rows):
        logger.warning(
            "%s: %d texts are nothing but attention sinks (one token), and left out.",
            corpus.name,
            len(rows) - len(kept),
        )
    return replace(corpus, records=tuple(kept)) if kept else corpus
