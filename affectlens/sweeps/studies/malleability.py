"""What a system prompt does to the emotion of replies, as a probe reads it.

The model answers labelled texts without a system prompt and under several. A probe that was fitted
on replies of known emotion reads the user's message and the reply; the reply is also read behind
the message alone, without the system prompt, which tells what is in its words from what the prompt
leaves in the activations. After the study of that name in "Decoding Emotion in the Deep" (arXiv
2510.04064), whose prompts are the first two here; the third says nothing of feelings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from affectlens.core.errors import DataError
from affectlens.datasets.schema import Corpus
from affectlens.pipeline.corpus_choice import CorpusChoice
from affectlens.sweeps.corpora import load_texts
from affectlens.sweeps.kept import KeptRows
from affectlens.sweeps.reading import Reader
from affectlens.sweeps.request import Fitting, SweepRequest
from affectlens.sweeps.studies.answers import Answering, answered
from affectlens.sweeps.studies.base import StudyResult, Watch
from affectlens.sweeps.studies.rulers import fit_rulers
from affectlens.sweeps.studies.system_prompts import (
    NONE,
    UNRELATED,
    Seen,
    agreement_rows,
    moved_rows,
    quality_rows,
)

NAME = "malleability"
SYSTEMS: Mapping[str, str] = {
    "emotional": "You are very emotional.",
    "calm": "You always remain calm and composed.",
    UNRELATED: "You work in a large office.",
}


@dataclass(frozen=True)
class MalleabilityRequest:
    """What is asked.

    Attributes:
        model: Name, hub id, folder or GGUF file.
        corpus: Texts with labels, which the model answers.
        ruler: Replies with labels, on which the probe is fitted; not those of ``corpus``.
        out: Folder; stores and replies are kept there.
        site: Where is read; default: what cross-validation chooses on ``ruler``.
        systems: System prompts by name, beside none at all.
        texts: At most so many, spread over labels and groups.
        answering: How replies are generated.
        fitting: Draws, folds, penalties and seed.
        device, dtype: As `affectlens.load_model`.
    """

    model: str
    corpus: CorpusChoice
    ruler: CorpusChoice
    out: Path
    site: str | None = None
    systems: Mapping[str, str] = field(default_factory=lambda: dict(SYSTEMS))
    texts: int = 70
    answering: Answering = field(default_factory=Answering)
    fitting: Fitting = field(default_factory=Fitting)
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if not self.systems or NONE in self.systems:
            raise DataError(
                f"Name one system prompt or more, none of them {NONE!r}: that is what the model "
                "does without one."
            )
        for name, text in self.systems.items():
            if not name or not text.strip():
                raise DataError(f"System prompt {name!r} is empty; give it words.")
        if self.texts < 2:
            raise DataError("Answer two texts or more.")

    def sweep(self, corpus: CorpusChoice) -> SweepRequest:
        """The sweep that reads a corpus."""
        return SweepRequest(
            models=(self.model,),
            corpora=(corpus,),
            out=self.out,
            sites=self.site or "resid_post",
            fitting=self.fitting,
            device=self.device,
            dtype=self.dtype,
        )


def malleability(
    request: MalleabilityRequest, watch: Watch = lambda _name, _what: None
) -> StudyResult:
    """Read messages and replies under each system prompt, beside controls.

    Raises:
        AffectLensError: In one sentence, before weights are read where that can be known.
    """
    (known,) = load_texts(request.sweep(request.ruler))
    texts = _few(request.corpus.load(), request.texts)
    _check(known.corpus, texts)
    reader = Reader(request.sweep(request.ruler), request.model)
    watch(f"{request.model} · {known.name}", "fitting the probe")
    rulers = fit_rulers(reader, known, request.site, request.fitting)
    kept = KeptRows(request.out)
    replies: dict[str, Corpus] = {}
    for name, system in {NONE: None, **request.systems}.items():
        watch(f"{request.model} · {name}", "replying")
        replies[name] = answered(reader.model, texts, system, request.answering, kept)
    seen = Seen.of(reader.model, rulers, replies)
    rows = quality_rows(seen, request.fitting)
    for name in replies:
        rows += agreement_rows(seen, name, request.fitting)
    for name in request.systems:
        rows += moved_rows(seen, name, request.fitting)
    return StudyResult(
        NAME,
        request.model,
        texts.name,
        rows,
        {
            "site": rulers.true.site.hook_name,
            "probe fitted on": known.name,
            "systems": dict(request.systems),
            "texts": len(seen.ids),
            "classes": list(rulers.classes),
            "reply tokens, at most": request.answering.tokens,
        },
        {"replies": seen.table()},
    )


def _few(corpus: Corpus, n: int) -> Corpus:
    """At most ``n`` labelled records, the labels in turn, those of each spread over the corpus."""
    labels = corpus.labels()
    if not labels:
        raise DataError(f"Corpus {corpus.name} has no labels, which replies are held against.")
    by_label = [[r for r in corpus if r.emotion == label] for label in labels]
    share = max(1, n // len(labels))
    chosen = [
        own[i * len(own) // min(share, len(own))]
        for own in by_label
        for i in range(min(share, len(own)))
    ]
    return replace(corpus, records=tuple(chosen[:n]))


def _check(known: Corpus, texts: Corpus) -> None:
    unread = sorted(set(texts.labels()).difference(known.labels()))
    if unread:
        raise DataError(
            f"The probe is fitted on {known.name}, which has no {', '.join(unread)} of "
            f"{texts.name}; choose a corpus with the same labels with --ruler, or leave texts out."
        )
    shared = {r.scenario for r in known}.intersection(r.scenario for r in texts)
    if known.name == texts.name and shared:
        raise DataError(
            f"The probe would be fitted on the texts that it reads ({len(shared)} scenarios of "
            f"{known.name}); choose another corpus for one of them."
        )
