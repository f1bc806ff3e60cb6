"""Records and corpora: what every loader gives and every later stage takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from affectlens.core import (
    VALENCES,
    DataError,
    GroupKey,
    UnknownNameError,
    emotion_name,
    fingerprint,
    group_key,
    group_name,
)
from affectlens.core.display import Displayed
from affectlens.core.emotions import inferred_labels
from affectlens.core.errors import unknown
from affectlens.core.groups import Groups

MESSAGE_ROLES: tuple[str, ...] = ("system", "user", "assistant", "text")
SPLITS: tuple[str, ...] = ("fit", "tune", "test")
DESIGNS: tuple[str, ...] = ("elicited", "replies", "texts")
ROLES: tuple[str, ...] = ("direction", "judge", "tune", "test")
"""What a record may be used for; no role shares a scenario with another.

``direction`` and ``judge`` halve the split ``fit``, so that a judge never saw what gave a
direction; ``tune`` and ``test`` are the splits of the same name.
"""


@dataclass(frozen=True)
class Message:
    """One turn of a chat, or a plain text.

    Attributes:
        role: ``"system"``, ``"user"``, ``"assistant"``, or ``"text"`` for a text without a chat.
        content: What it says, exactly as the model will see it.
    """

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in MESSAGE_ROLES:
            raise unknown("message role", self.role, MESSAGE_ROLES)
        if not self.content.strip():
            raise DataError(f"A {self.role} message is empty; leave it out or give it words.")


@dataclass(frozen=True)
class Record:
    """One text with its labels.

    Attributes:
        id: Unique within its corpus.
        messages: The chat in order; a reply is a last message with role ``"assistant"``, a plain
            text a single message with role ``"text"``.
        emotion: The label, or None where there is none.
        valence: Valence of the *content* (not of the tone), or None.
        group: Scenario and valence, ``"work_03:negative"``: one content seen under every emotion.
        theme: Theme or register, for breakdowns.
        split: ``"fit"``, ``"tune"`` or ``"test"``.
        meta: Further JSON-able facts; ``meta["role"]`` is one of :data:`ROLES`,
            ``meta["scenario"]`` what must never be spread over two splits.
    """

    id: str
    messages: tuple[Message, ...]
    emotion: str | None
    valence: str | None
    group: str
    theme: str
    split: str
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.id or not self.group:
            raise DataError(f"A record needs an id and a group (id {self.id!r}).")
        if self.split not in SPLITS:
            raise unknown("split", self.split, SPLITS)
        roles = [message.role for message in self.messages]
        if not roles:
            raise DataError(f"Record {self.id} has no text.")
        if "text" in roles and len(roles) > 1:
            raise DataError(f"Record {self.id} mixes a plain text with chat messages; use one.")
        if "system" in roles[1:]:
            raise DataError(f"Record {self.id} has a system message that is not the first.")

    @property
    def role(self) -> str:
        """What the record may be used for (one of :data:`ROLES`)."""
        return str(self.meta.get("role") or {"fit": "direction"}.get(self.split, self.split))

    @property
    def group_key(self) -> GroupKey:
        """What it shares with the records of the same content (see `affectlens.core.groups`)."""
        return group_key(self.group, self.valence)

    @property
    def scenario(self) -> str:
        """The unit of splitting and of cross-validation: several groups may share one."""
        return str(self.meta.get("scenario") or scenario_of(self.group))

    @property
    def reply(self) -> str | None:
        """The reply, if the last message is one."""
        return self.messages[-1].content if self.messages[-1].role == "assistant" else None

    @property
    def text(self) -> str:
        """The words that carry the label: the plain text, the reply, or else the last message."""
        return self.messages[-1].content

    @property
    def chat(self) -> tuple[dict[str, str], ...]:
        """The messages as chat templates and `affectlens.models.chat.chats.render` take them."""
        return tuple({"role": m.role, "content": m.content} for m in self.messages)


def scenario_of(group: str) -> str:
    """The scenario of a group key: ``"work_03"`` for ``"work_03:negative"``."""
    scenario, _, valence = group.rpartition(":")
    return scenario if scenario and valence in VALENCES else group


@dataclass(frozen=True, repr=False)
class Corpus(Displayed):
    """Records of one design.

    Attributes:
        name: What it was loaded as.
        design: ``"elicited"`` (a system prompt asks for the emotion; read at the last prompt
            token), ``"replies"`` (a reply carries it) or ``"texts"``.
        records: At least one; ids are unique. The order is part of the fingerprint.
        provenance: Source, licence, citation and the options of the loader.
        label_set: The labels that records may have, in order. By default ours (`TONES`), or, if
            others occur, those that do. It goes with the corpus through every later stage.
    """

    name: str
    design: str
    records: tuple[Record, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    label_set: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.design not in DESIGNS:
            raise unknown("design", self.design, DESIGNS)
        if not self.records:
            raise DataError(f"Corpus {self.name} is empty; check its file or your filter.")
        seen: set[str] = set()
        for record in self.records:
            if record.id in seen:
                raise DataError(f"Corpus {self.name} has two records with the id {record.id!r}.")
            seen.add(record.id)
        found = {record.emotion for record in self.records if record.emotion is not None}
        if not self.label_set:
            object.__setattr__(self, "label_set", inferred_labels(found))
        for name in sorted(found.difference(self.label_set)):
            raise unknown(f"label in corpus {self.name}", name, self.label_set)
        if len(set(self.label_set)) < len(self.label_set):
            raise DataError(f"The label set of corpus {self.name} names a label twice.")

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def brief(self) -> dict[str, object]:
        """Name, design, records, groups, and how many of the labels occur."""
        return {
            "name": self.name,
            "design": self.design,
            "records": len(self),
            "groups": len(self.groups()),
            "labels": len(self.labels()),
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row per record; its text is that of its last message."""
        names = ("id", "emotion", "valence", "group", "theme", "split", "role", "text")
        return [{name: getattr(record, name) for name in names} for record in self.records]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the design, the label set and every field of every record, in order."""
        rows = [
            [r.id, r.chat, r.emotion, r.valence, r.group, r.theme, r.split, dict(r.meta)]
            for r in self.records
        ]
        return fingerprint(self.design, list(self.label_set), rows)

    def labels(self) -> tuple[str, ...]:
        """The labels that occur, in the order of the label set."""
        found = {record.emotion for record in self.records}
        return tuple(label for label in self.label_set if label in found)

    def groups(self) -> tuple[str, ...]:
        """The groups that occur, in order of appearance, their valence in the name."""
        return tuple(dict.fromkeys(group_name(record.group_key) for record in self.records))

    def scenarios(self) -> tuple[str, ...]:
        """The scenarios that occur, in order of appearance."""
        return tuple(dict.fromkeys(record.scenario for record in self.records))

    def filter(
        self,
        *,
        split: str | Collection[str] | None = None,
        emotion: str | Collection[str] | None = None,
        role: str | Collection[str] | None = None,
        theme: str | Collection[str] | None = None,
        valence: str | Collection[str] | None = None,
    ) -> Corpus:
        """Keep the records that match every condition given; each takes one name or several.

        An emotion may be named as in a steering spec (``joy`` for ``happiness``, if ``joy`` is no
        label of the corpus); those named become the label set.

        Raises:
            UnknownNameError: If a name does not occur (nor is a valid split or role).
            DataError: If nothing is left.
        """
        asked = {
            "split": split,
            "emotion": emotion,
            "role": role,
            "theme": theme,
            "valence": valence,
        }
        conditions = {
            key: frozenset((value,) if isinstance(value, str) else value)
            for key, value in asked.items()
            if value is not None
        }
        if "emotion" in conditions:
            conditions["emotion"] = self._label_names(conditions["emotion"])
        always_valid = {"split": SPLITS, "role": ROLES}
        for key, names in conditions.items():
            valid = [
                *always_valid.get(key, ()),
                *dict.fromkeys(str(getattr(r, key)) for r in self.records if getattr(r, key)),
            ]
            for name in sorted(names.difference(valid)):
                raise unknown(f"{key} in corpus {self.name}", name, valid)
        kept = tuple(
            record
            for record in self.records
            if all(getattr(record, key) in names for key, names in conditions.items())
        )
        if not kept:
            wanted = ", ".join(f"{k}={'/'.join(sorted(v))}" for k, v in conditions.items())
            raise DataError(f"Corpus {self.name} has no records with {wanted}; widen the filter.")
        chosen = {key: sorted(names) for key, names in conditions.items()}
        previous: Sequence[Any] = self.provenance.get("filters", ())
        filters = [*previous, chosen] if chosen else list(previous)
        named = conditions.get("emotion", self.label_set)
        return replace(
            self,
            records=kept,
            provenance={**self.provenance, "filters": filters},
            label_set=tuple(label for label in self.label_set if label in named),
        )

    def _label_names(self, names: Iterable[str]) -> frozenset[str]:
        """Labels as a user types them; those that do not exist stay as they are."""
        found: list[str] = []
        for name in names:
            try:
                found.append(emotion_name(name, self.label_set))
            except UnknownNameError:
                found.append(name)
        return frozenset(found)

    def require_emotions(self, emotions: Sequence[str] | None = None) -> None:
        """Check that these emotions occur, or, if none are named, at least two.

        Raises:
            DataError: If they do not.
        """
        found = self.labels()
        if emotions is None:
            if len(found) < 2:
                raise DataError(
                    f"Corpus {self.name} has {found[0] if found else 'no emotion'} only; "
                    "at least two emotions are needed to tell them apart."
                )
            return
        missing = [emotion for emotion in emotions if emotion not in found]
        if missing:
            raise DataError(
                f"Corpus {self.name} has no records for {', '.join(missing)}; it has "
                f"{', '.join(found) or 'no emotions'}."
            )

    def require_complete_groups(self, emotions: Sequence[str]) -> None:
        """Check that every group has every emotion, so that content cancels.

        Raises:
            DataError: Naming the first group that lacks one.
        """
        self.require_emotions(emotions)
        incomplete = incomplete_groups(self, emotions)
        if incomplete:
            group, missing = next(iter(incomplete.items()))
            others = f" and {len(incomplete) - 1} more groups are" if len(incomplete) > 1 else " is"
            raise DataError(
                f"In corpus {self.name} group {group} (without {', '.join(missing)}){others} "
                "incomplete; add the missing texts or leave the group out."
            )


def incomplete_groups(corpus: Corpus, emotions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The groups that lack some of the emotions, with what they lack."""
    labels = [record.emotion for record in corpus]
    keys = [record.group_key for record in corpus]
    lacking = Groups.find(labels, keys, emotions).lacking()
    return {group_name(key): missing for key, missing in lacking.items()}
