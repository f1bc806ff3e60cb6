"""What the stages of a run read, made of a user's own corpus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from affectlens.core import NEUTRAL, DataError, emotion_name, group_name
from affectlens.core.emotions import own_emotions
from affectlens.pipeline.own.choice import OwnCorpus
from affectlens.pipeline.own.fitness import Counted, problems, said_before
from affectlens.pipeline.own.groups import Grouped, as_reply, grouped

if TYPE_CHECKING:
    from affectlens.datasets import Corpus, Record


@dataclass(frozen=True)
class OwnTexts:
    """The corpora of a run on one's own texts.

    Attributes:
        name: Of the corpus.
        replies: Every labelled text as a reply, with its split and role: for probes and judges.
        grouped: Texts of the role ``direction`` in groups of all labels: for directions.
        events: The prompts that the arms answer, without a label.
        openers: First sentences by label that the model goes on from; empty if there are none.
        notices: What a reader of the results has to know, a sentence each.
        evidence: Whether there are texts to test a circuit on.
    """

    name: str
    replies: Corpus
    grouped: Corpus
    events: Corpus
    openers: Mapping[str, tuple[str, ...]]
    notices: tuple[str, ...]
    evidence: bool

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, the neutral one included."""
        return self.replies.label_set

    @cached_property
    def emotions(self) -> tuple[str, ...]:
        """The labels that are steered: all but the neutral one."""
        return own_emotions(self.labels)

    @classmethod
    def of(cls, asked: OwnCorpus) -> OwnTexts:
        """Read the texts, and say what cannot be done with them before anything is done.

        Raises:
            DataError: With a sentence for everything that is in the way.
            UnknownNameError: If a corpus or label does not exist.
        """
        whole = asked.load()
        labelled = _labelled(whole, asked.neutral)
        emotions = own_emotions(labelled.label_set)
        kept = replace(labelled, records=_fewer(labelled.records, emotions, asked.per_label))
        events = _events(asked, kept)
        openers = {} if asked.openers is None else _openers(asked.openers, emotions)
        counted = Counted(
            asked=asked,
            corpus=kept,
            emotions=emotions,
            unlabelled=sum(r.emotion is None for r in whole),
            absent=tuple(e for e in own_emotions(whole.label_set) if e not in whole.labels()),
            others=dict(whole.provenance.get("other_labels", {})),
            left_out=len(labelled) - len(kept),
            events=events,
            openers=openers,
        )
        found = problems(counted)
        if found or events is None:
            raise DataError("\n".join(found))
        of_role = [r for r in kept if r.role == "direction"]
        made = grouped(of_role, emotions)
        tested = counted.carried_over()
        return cls(
            name=whole.name,
            replies=replace(
                kept, name="replies", design="replies", records=tuple(map(as_reply, kept))
            ),
            grouped=_corpus("grouped", made, emotions),
            events=events,
            openers=openers,
            notices=tuple(said_before(counted, made)),
            evidence=tested,
        )


def _corpus(name: str, made: Grouped, emotions: Sequence[str]) -> Corpus:
    from affectlens.datasets import Corpus

    return Corpus(name, "replies", made.records, {}, tuple(emotions))


def _labelled(whole: Corpus, neutral: str | None) -> Corpus:
    """The records with a label, of those labels alone that occur; the neutral one as ours."""
    from affectlens.datasets import Corpus

    labels, called = whole.labels(), dict[str, str]()
    if neutral is not None:
        called[emotion_name(neutral, labels)] = NEUTRAL
    records = tuple(
        replace(r, emotion=called.get(r.emotion, r.emotion)) for r in whole if r.emotion is not None
    )
    if not records:
        raise DataError(
            f"{whole.name} has no labelled text; name the column of the labels with --column "
            "emotion=…."
        )
    found = tuple(dict.fromkeys(called.get(label, label) for label in labels))
    ordered = (*own_emotions(found), *(label for label in found if label == NEUTRAL))
    return Corpus(whole.name, whole.design, records, dict(whole.provenance), ordered)


def _fewer(
    records: Sequence[Record], emotions: Sequence[str], per_label: int | None
) -> tuple[Record, ...]:
    """At most so many texts of each label, or groups of all labels, spread evenly over roles."""
    if per_label is None:
        return tuple(records)
    groups: defaultdict[object, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.group_key].append(record)
    shared = len(groups) < len(records) / max(1.5, len(emotions) / 2)
    units: list[list[Record]] = list(groups.values()) if shared else [[r] for r in records]
    by_label: defaultdict[str, list[list[Record]]] = defaultdict(list)
    for unit in units:
        by_label["" if shared else str(unit[0].emotion)].append(unit)
    kept: set[str] = set()
    for members in by_label.values():
        ordered = sorted(members, key=lambda unit: unit[0].role)
        count = min(per_label, len(ordered))
        for i in range(count):
            kept.update(r.id for r in ordered[i * len(ordered) // count])
    return tuple(record for record in records if record.id in kept)


def _events(asked: OwnCorpus, corpus: Corpus) -> Corpus | None:
    """The prompts of the replies, or those that are named, or the shipped ones."""
    from affectlens.datasets import Corpus, Message, load
    from affectlens.pipeline.corpus_choice import CorpusChoice

    if asked.prompts is None and any(r.reply is not None and r.messages[:-1] for r in corpus):
        told = [(r, r.messages[:-1]) for r in corpus if r.reply is not None and r.messages[:-1]]
    elif asked.prompts is None:
        return load("events")
    else:
        is_file = "." in asked.prompts
        named = CorpusChoice(asked.prompts, labels="any" if is_file else None, several="first")
        source = (named if is_file else CorpusChoice(asked.prompts)).load()
        told = [(r, r.messages[:-1] if r.reply is not None else r.messages) for r in source]
    found: dict[str, Record] = {}
    for record, messages in told:
        name = group_name(record.group_key)
        if name in found or not messages or messages[-1].role not in ("user", "text"):
            continue
        asks = (*messages[:-1], Message("user", messages[-1].content))
        found[name] = replace(record, id=name, messages=asks, emotion=None)
    return Corpus("events", "texts", tuple(found.values())) if found else None


def _openers(file: str, emotions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """First sentences by label."""
    from affectlens.datasets.loaders.user_file import from_file

    found: dict[str, list[str]] = {e: [] for e in emotions}
    for record in from_file(file, emotions=list(emotions), others="drop"):
        if record.emotion is not None:
            found[record.emotion].append(record.text)
    return {emotion: tuple(texts) for emotion, texts in found.items()}
