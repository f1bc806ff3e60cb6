"""Scenarios with events of three valences: ours, or a file in the paper's format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from affectlens.core import EMOTIONS, VALENCES, DataError, fingerprint
from affectlens.core.artefact import file_fingerprint
from affectlens.core.jsonl import read_jsonl as read_own
from affectlens.core.jsonl import write_jsonl
from affectlens.datasets import elicitation_prompt, grouped_split
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.datasets.tables.text_files import read_jsonl, require_column

if TYPE_CHECKING:
    from affectlens.reproductions.request import StudyRequest

FILE = "scenarios.jsonl"
_SHARES = {"fit": 0.75, "test": 0.25}


@dataclass(frozen=True)
class Event:
    """One content: a scenario and what happened, under a valence.

    Attributes:
        skeleton: The scenario's id.
        valence: Of the event.
        theme: The scenario's.
        scenario, event: What the user says, a line each.
        split: ``"fit"`` or ``"test"``.
    """

    skeleton: str
    valence: str
    theme: str
    scenario: str
    event: str
    split: str

    @property
    def group(self) -> str:
        """Key of the content: scenario and valence."""
        return f"{self.skeleton}:{self.valence}"

    @property
    def prompt(self) -> str:
        """The user's message."""
        return f"{self.scenario}\n{self.event}"

    def record(self, emotion: str) -> Record:
        """Its prompt with the system prompt of an emotion (``"neutral"``: the length limit)."""
        return Record(
            id=f"{self.group}:{emotion}",
            messages=(
                Message("system", elicitation_prompt(emotion)),
                Message("user", self.prompt),
            ),
            emotion=emotion,
            valence=self.valence,
            group=self.group,
            theme=self.theme,
            split=self.split,
            meta={"scenario": self.skeleton},
        )


def elicited(events: Sequence[Event], emotions: Sequence[str] = EMOTIONS) -> Corpus:
    """Each content under each emotion."""
    records = tuple(event.record(emotion) for event in events for emotion in emotions)
    return Corpus("emotion-circuits", "elicited", records)


def overwritten(corpus: Corpus) -> Corpus:
    """Grouped by scenario alone: of its valences the last one has overwritten the others.

    That is what the published script 05 does to the differences of neurons.
    """
    last: dict[tuple[str, str | None], Record] = {
        (record.scenario, record.emotion): record for record in corpus
    }
    records = tuple(
        Record(
            id=record.id,
            messages=record.messages,
            emotion=record.emotion,
            valence=None,
            group=record.scenario,
            theme=record.theme,
            split=record.split,
            meta=record.meta,
        )
        for record in last.values()
    )
    return Corpus(corpus.name, corpus.design, records)


def material(request: StudyRequest) -> str:
    """Fingerprint of the texts, all of which are read and checked.

    Raises:
        DataError: Naming file and line.
    """
    if request.scenarios is None:
        return fingerprint([asdict(event) for event in own_events()])
    paths = [path for path in (request.scenarios, request.test) if path is not None]
    for path in paths:
        tuple(_nested(path))
    return fingerprint([file_fingerprint(path) for path in paths])


def all_events(request: StudyRequest) -> list[Event]:
    """Every event there is, to fit on and to test on.

    Raises:
        DataError: Naming file and line; or if both files share a scenario.
    """
    if request.scenarios is None:
        return own_events()
    rows = list(_nested(request.scenarios))
    if request.test is None:
        keys = [row["skeleton_id"] for row in rows]
        themes = [row["theme"] for row in rows]
        splits = grouped_split(keys, fractions=_SHARES, strata=themes, seed=request.seed)
        return [event for row, split in zip(rows, splits, strict=True) for event in _of(row, split)]
    known = {row["scenario"] for row in rows}
    tested = list(_nested(request.test))
    for row in tested:
        if row["scenario"] in known:
            raise DataError(
                f"{request.test} holds a scenario of {request.scenarios} "
                f"({row['scenario'][:60]!r}); test on others than were fitted on."
            )
    return [e for row in rows for e in _of(row, "fit")] + [
        e for row in tested for e in _of(row, "test")
    ]


def own_events() -> list[Event]:
    """Ours: those that directions may see, and those kept for tests."""
    from affectlens.datasets.authored import scenario_rows

    found: list[Event] = []
    for row in scenario_rows():
        split = {"direction": "fit", "test": "test"}.get(row["role"])
        if split is not None:
            nested = {"skeleton_id": row["id"], "theme": row["theme"], "event": row["events"]}
            found += _of({**nested, "scenario": row["scenario"]}, split)
    return found


def load_events(path: Path, split: str | None = None) -> list[Event]:
    """Events that a run uses."""
    events = [Event(**row) for row in read_own(path)]
    return [event for event in events if split is None or event.split == split]


def save_events(path: Path, events: Sequence[Event]) -> None:
    """Write them, one a line."""
    write_jsonl(path, (asdict(event) for event in events))


def spread_events(events: Sequence[Event], n: int | None) -> list[Event]:
    """At most so many, spread over scenarios and valences."""
    from affectlens.datasets import spread

    if n is None or n >= len(events):
        return list(events)
    by_group = {event.group: event for event in events}
    return [by_group[r.group] for r in spread(elicited(events, ["neutral"]), n)]


def _nested(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file in the paper's format, checked."""
    seen: dict[str, int] = {}
    for number, row in read_jsonl(path):
        for column in ("theme", "scenario", "event", "skeleton_id"):
            require_column(path, number, row, column)
            if column != "event" and not (isinstance(row[column], str) and row[column].strip()):
                raise DataError(f"{path}, line {number}: {column} must be a text.")
        if not isinstance(row["event"], Mapping):
            raise DataError(
                f"{path}, line {number}: event must map {', '.join(VALENCES)} to a text each."
            )
        events = cast("Mapping[str, Any]", row["event"])
        for valence in VALENCES:
            text = events.get(valence)
            if not (isinstance(text, str) and text.strip()):
                raise DataError(
                    f"{path}, line {number}: the event lacks its {valence} form; give a text each "
                    f"for {', '.join(VALENCES)}."
                )
        first = seen.setdefault(row["skeleton_id"], number)
        if first != number:
            raise DataError(
                f"{path}, line {number}: skeleton_id {row['skeleton_id']!r} is that of line "
                f"{first}; every scenario needs its own."
            )
        yield row


def _of(row: Mapping[str, Any], split: str) -> list[Event]:
    return [
        Event(
            skeleton=row["skeleton_id"],
            valence=valence,
            theme=row["theme"],
            scenario=row["scenario"],
            event=row["event"][valence],
            split=split,
        )
        for valence in VALENCES
    ]
