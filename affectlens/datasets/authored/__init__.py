"""The corpora that ship with the package, as `Corpus` objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from affectlens.core import TONES, VALENCES, emotion_name
from affectlens.core.emotions import NEUTRAL
from affectlens.core.errors import unknown
from affectlens.core.jsonl import parse_jsonl
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.datasets.splits import authored_scenario_roles, authored_topic_role

LENGTH_LIMIT = "Reply in at most two sentences."
_PROVENANCE = {
    "source": "written for AffectLens",
    "licence": "Apache-2.0",
    "cite": "AffectLens authored corpus",
}


def elicitation_prompt(emotion: str, *, limited: bool = True) -> str:
    """The system prompt that asks for an emotion.

    The prompts of two emotions differ in one word and nothing else, white space included; the
    neutral one holds the length limit alone. After Wang et al., 2025, "Do LLMs 'Feel'?"
    (arXiv:2510.11328), §3.

    Args:
        emotion: One of the tones, aliases allowed.
        limited: Ask for at most two sentences as well, as published. Leave that out where the
            replies are compared with ones that nobody asked to be short.
    """
    name = emotion_name(emotion)
    asked = "" if name == NEUTRAL else f"Always reply in {name}."
    return " ".join(part for part in (asked, LENGTH_LIMIT if limited else "") if part)


def _rows(kind: str) -> Iterator[dict[str, Any]]:
    """All rows of ``*.<kind>.jsonl``, files in order of name."""
    folder = files(__name__)
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith(f".{kind}.jsonl"))
    for name in names:
        yield from parse_jsonl((folder / name).read_text(encoding="utf-8"))


def _scenarios() -> dict[str, dict[str, Any]]:
    """``id -> row``, each with its split and role put in."""
    rows = {row["id"]: row for row in _rows("scenarios")}
    themes: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in rows.values():
        themes[row["theme"]].append((row["id"], row["split"]))
    for members in themes.values():
        for id_, (split, role) in authored_scenario_roles(members).items():
            rows[id_]["split"], rows[id_]["role"] = split, role
    return rows


def scenario_rows() -> list[dict[str, Any]]:
    """The scenarios as they were written: ``id``, ``theme``, ``scenario``, ``events`` by valence,
    ``split`` and ``role``."""
    return list(_scenarios().values())


def _user_message(row: dict[str, Any], valence: str) -> Message:
    return Message("user", f"{row['scenario']} {row['events'][valence]}")


def _record(
    row: dict[str, Any], valence: str, emotion: str | None, messages: tuple[Message, ...]
) -> Record:
    group = f"{row['id']}:{valence}"
    return Record(
        id=f"{group}:{emotion}" if emotion else group,
        messages=messages,
        emotion=emotion,
        valence=valence,
        group=group,
        theme=row["theme"],
        split=row["split"],
        meta={"role": row["role"], "scenario": row["id"]},
    )


def scenarios(emotions: Sequence[str] = TONES) -> Corpus:
    """The elicited design: each scenario-event under a system prompt for each emotion.

    Args:
        emotions: Which tones to ask for.

    Returns:
        120 scenarios × 3 events × the emotions, read at the last prompt token.
    """
    names = tuple(emotion_name(emotion) for emotion in emotions)
    records = tuple(
        _record(
            row,
            valence,
            emotion,
            (Message("system", elicitation_prompt(emotion)), _user_message(row, valence)),
        )
        for row in _scenarios().values()
        for valence in VALENCES
        for emotion in names
    )
    return Corpus("scenarios", "elicited", records, {**_PROVENANCE, "emotions": list(names)})


def events() -> Corpus:
    """One record per scenario-event, the user's message alone: the prompts every arm shares."""
    records = tuple(
        _record(row, valence, None, (_user_message(row, valence),))
        for row in _scenarios().values()
        for valence in VALENCES
    )
    return Corpus("events", "texts", records, dict(_PROVENANCE))


def replies() -> Corpus:
    """One event of each scenario with a matched reply in each of the seven tones (840)."""
    known = _scenarios()
    records: list[Record] = []
    for reply in _rows("replies"):
        id_, _, valence = reply["group"].rpartition(":")
        messages = (_user_message(known[id_], valence), Message("assistant", reply["text"]))
        records.append(_record(known[id_], valence, reply["emotion"], messages))
    return Corpus("replies", "replies", tuple(records), dict(_PROVENANCE))


def implicit() -> Corpus:
    """Replies that show a feeling and have no word for it: further events, all seven tones (791).

    In groups like `replies`, and with the roles of its scenarios; the groups have names of their
    own, because some events are answered in both.
    """
    known = _scenarios()
    records: list[Record] = []
    for reply in _rows("implicit"):
        id_, _, valence = reply["group"].rpartition(":")
        messages = (_user_message(known[id_], valence), Message("assistant", reply["text"]))
        made = _record(known[id_], valence, reply["emotion"], messages)
        records.append(replace(made, id=f"implicit:{made.id}", group=f"implicit:{made.group}"))
    return Corpus("implicit", "replies", tuple(records), dict(_PROVENANCE))


def tones() -> Corpus:
    """Single texts in eight registers × 18 topics × seven tones (1,008)."""
    records: list[Record] = []
    for row in _rows("tones"):
        topic = int(row["group"].rpartition("_")[2])
        split, role = authored_topic_role(topic)
        records.append(
            Record(
                id=f"{row['group']}:{row['emotion']}",
                messages=(Message("text", row["text"]),),
                emotion=row["emotion"],
                valence=None,
                group=row["group"],
                theme=row["register"],
                split=split,
                # A topic comes back in every register, so the topic is what splits must keep whole.
                meta={"role": role, "scenario": f"topic_{topic:02d}"},
            )
        )
    return Corpus("tones", "texts", tuple(records), dict(_PROVENANCE))


def vignettes() -> Corpus:
    """Situations without a word for a feeling: 18 settings × seven tones (126), to test on.

    In a setting each tone is what happens there, so that places and things cancel within a group.
    Half of the settings are for choosing (``tune``), half for the last word (``test``); none gives
    a direction or a judge.
    """
    rows = list(_rows("vignettes"))
    settings = list(dict.fromkeys(row["group"] for row in rows))
    records = list[Record]()
    for row in rows:
        split = "test" if settings.index(row["group"]) % 2 else "tune"
        records.append(
            Record(
                id=f"{row['group']}:{row['emotion']}",
                messages=(Message("text", row["text"]),),
                emotion=row["emotion"],
                valence=None,
                group=row["group"],
                theme=row["group"],
                split=split,
                meta={"role": split, "scenario": row["group"]},
            )
        )
    return Corpus("vignettes", "texts", tuple(records), dict(_PROVENANCE))


def openers() -> dict[str, tuple[str, ...]]:
    """First sentences of a reply that name the feeling, by emotion; a model goes on from them."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    text = (files(__name__) / "openers.jsonl").read_text(encoding="utf-8")
    for row in parse_jsonl(text):
        found[row["emotion"]].append(row["text"])
    return {emotion: tuple(texts) for emotion, texts in found.items()}


def authored(design: str = "replies") -> Corpus:
    """The shipped corpus of a design: ``"replies"``, ``"elicited"`` or ``"tones"``."""
    designs = {"replies": replies, "elicited": scenarios, "tones": tones, "texts": tones}
    if design not in designs:
        raise unknown("design", design, designs)
    return designs[design]()
