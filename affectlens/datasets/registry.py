"""Corpora by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectlens.core.errors import unknown
from affectlens.core.registry import Registry
from affectlens.datasets import authored as shipped
from affectlens.datasets.loaders import emobank, goemotions, repe
from affectlens.datasets.loaders import user_file as generic
from affectlens.datasets.schema import Corpus, Record


@dataclass(frozen=True)
class CorpusInfo:
    """A corpus that can be loaded by name.

    Attributes:
        name: What `load` takes.
        design: ``"elicited"``, ``"replies"`` or ``"texts"``.
        rows: How many records the loader gives with its default options (for third-party
            corpora: how many rows the authors' files have).
        licence: SPDX identifier.
        source: Where it comes from.
        help: One line.
        cite: What to cite.
        loader: The function behind the name.
    """

    name: str
    design: str
    rows: int
    licence: str
    source: str
    help: str
    cite: str
    loader: Callable[..., Corpus]


_SHIPPED = ("Apache-2.0", "shipped")
_OWN = "AffectLens authored corpus"
CORPORA: Registry[CorpusInfo] = Registry(
    "corpus",
    CorpusInfo(
        "scenarios",
        "elicited",
        2520,
        *_SHIPPED,
        "120 scenarios × 3 events under a system prompt for each of 7 tones",
        _OWN,
        shipped.scenarios,
    ),
    CorpusInfo(
        "replies",
        "replies",
        840,
        *_SHIPPED,
        "one event of each of 120 scenarios with a matched reply in each of 7 tones",
        _OWN,
        shipped.replies,
    ),
    CorpusInfo(
        "implicit",
        "replies",
        791,
        *_SHIPPED,
        "113 scenario-events with a reply in each of 7 tones, none with a word for a feeling",
        _OWN,
        shipped.implicit,
    ),
    CorpusInfo(
        "tones",
        "texts",
        1008,
        *_SHIPPED,
        "8 registers × 18 topics × 7 tones; half of the texts name the feeling",
        _OWN,
        shipped.tones,
    ),
    CorpusInfo(
        "events",
        "texts",
        360,
        *_SHIPPED,
        "the 360 scenario-events alone, without emotion: neutral prompts",
        _OWN,
        shipped.events,
    ),
    CorpusInfo(
        "vignettes",
        "texts",
        126,
        *_SHIPPED,
        "18 settings × 7 tones told by what happens, without a word for a feeling: for tests",
        _OWN,
        shipped.vignettes,
    ),
    CorpusInfo(
        "goemotions",
        "texts",
        54263,
        "Apache-2.0",
        "path= with the authors' TSV files, or hub=True",
        "Reddit comments labelled with 27 emotions, mapped to six and neutral",
        goemotions.CITE,
        goemotions.goemotions,
    ),
    CorpusInfo(
        "emobank",
        "texts",
        10062,
        "CC-BY-SA-4.0",
        "path= with the authors' CSV, or hub= with an id",
        "sentences rated for valence, arousal and dominance from 1 to 5",
        emobank.CITE,
        emobank.emobank,
    ),
    CorpusInfo(
        "repe",
        "texts",
        1249,
        "MIT",
        "path= with the authors' folder data/emotions",
        "second-person scenarios that make one of six emotions likely",
        repe.CITE,
        repe.repe,
    ),
)


def list_corpora() -> tuple[CorpusInfo, ...]:
    """The corpora `load` knows by name."""
    return tuple(CORPORA.values())


def load(name: str | Path, **options: Any) -> Corpus:
    """Load a corpus.

    Args:
        name: ``"scenarios"``, ``"replies"``, ``"implicit"``, ``"tones"``, ``"events"``,
            ``"vignettes"``,
            ``"goemotions"``, ``"emobank"``, ``"repe"``, ``"authored"`` (with ``design="replies"``,
            ``"elicited"`` or ``"tones"``), or a ``.jsonl``, ``.csv`` or ``.tsv`` file.
        **options: Of its loader, for example ``path=``, ``columns=``, ``emotions=``.

    Raises:
        UnknownNameError: If there is no such corpus or option.
        DataError: If its files are missing or not what they should be.
    """
    loaders: dict[str, Callable[..., Corpus]] = {
        info.name: info.loader for info in CORPORA.values()
    }
    loaders["authored"] = shipped.authored
    key = str(name)
    if key in loaders:
        loader = loaders[key]
        _check_options(key, loader, options)
        return loader(**options)
    if Path(key).suffix.lower() in generic.SUFFIXES:
        _check_options(key, generic.from_file, options, skip=1)
        return generic.from_file(key, **options)
    raise unknown("corpus", key, [*loaders, "a .jsonl, .json or .csv file"])


def show(corpus: Corpus, n: int = 5) -> list[dict[str, str]]:
    """Rows for a table: ``n`` records spread evenly over the corpus, the emotions in turn."""
    count = max(0, min(n, len(corpus)))
    labels = corpus.labels() or (None,)
    rows: list[dict[str, str]] = []
    for i in range(count):
        start, end = (k * len(corpus) // count for k in (i, i + 1))
        wanted = labels[i % len(labels)]
        stretch = corpus.records[start:end]
        rows.append(_row(next((r for r in stretch if r.emotion == wanted), stretch[0])))
    return rows


def _row(record: Record) -> dict[str, str]:
    return {
        "id": record.id,
        "emotion": record.emotion or "",
        "valence": record.valence or "",
        "theme": record.theme,
        "split": record.split,
        "role": record.role,
        "text": "\n".join(
            m.content if m.role == "text" else f"{m.role}: {m.content}" for m in record.messages
        ),
    }


def _check_options(
    name: str, loader: Callable[..., Corpus], options: dict[str, Any], skip: int = 0
) -> None:
    valid = list(inspect.signature(loader).parameters)[skip:]
    for option in options:
        if option not in valid:
            raise unknown(f"option of corpus {name}", option, valid)
