"""Turn by turn: what a calibrated probe reads in each turn of dialogues.

Every turn is read twice: where it stands, and without the turns before it (a reply behind the
message that it answers). The difference is what the dialogue brought along. Over several dialogues
means have intervals, and the agreement of replies with the message before them is held against
what the frequencies of both would give.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from affectlens.core.errors import DataError
from affectlens.core.jsonl import parse_jsonl
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.sweeps.studies.base import Row, StudyResult, Watch, line, mean_with_interval
from affectlens.sweeps.studies.moved import agreement_by_chance

if TYPE_CHECKING:
    from affectlens.models import LanguageModel
    from affectlens.probes import Probe

NAME = "dialogue"
EVERY = "all dialogues"
ALONE = "without the turns before"
_TURNS = ("user", "assistant")

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class DialogueRequest:
    """What is asked.

    Attributes:
        probe: File of a probe, from ``affectlens probe fit`` or `Probe.save`.
        chats: File of dialogues; see `read_dialogues`.
        model: Default: the one the probe was fitted on.
        coverage: Of the label sets of each turn.
        draws, seed: Of intervals.
        device, dtype: As `affectlens.load_model`.
        force: Read another model of the same width all the same.
    """

    probe: Path
    chats: Path
    model: str | None = None
    coverage: float = 0.9
    draws: int = 2000
    seed: int = 0
    device: str | None = None
    dtype: str | None = None
    force: bool = False


def dialogue(request: DialogueRequest, watch: Watch = lambda _name, _what: None) -> StudyResult:
    """Read every turn of the dialogues of a file.

    Raises:
        AffectLensError: In one sentence, before weights are read where that can be known.
    """
    from affectlens.models import load_model
    from affectlens.probes import Probe

    chats = read_dialogues(request.chats)
    probe = Probe.load(request.probe)
    if probe.reads_tokens:
        raise DataError(
            f"A {probe.kind} probe reads every token of a text; fit one that reads a row of each "
            "turn, for example logistic."
        )
    probe.label_sets(torch.zeros(1, len(probe.classes)), request.coverage)
    name = request.model or probe.provenance.model_name
    watch(name, "loading")
    model = load_model(name, device=request.device, dtype=request.dtype)
    probe.provenance.require_model(model.fingerprint, model.name, force=request.force)
    watch(f"{name} · {request.chats.name}", "reading")
    turns = read_turns(model, probe, chats, request.coverage)
    return StudyResult(
        NAME,
        name,
        request.chats.stem,
        [*_lines(turns, probe.classes), *_over_dialogues(turns, probe.classes, request)],
        {
            "site": probe.site.hook_name,
            "probe fitted at": probe.position,
            "coverage of label sets": request.coverage,
            "dialogues": len(chats),
            "turns": len(turns),
            "classes": list(probe.classes),
        },
        {"turns": [turn.row(probe.classes) for turn in turns]},
    )


def read_dialogues(path: Path) -> dict[str, tuple[Message, ...]]:
    """Dialogues of a file by name: lists of ``{"role", "content"}``.

    A ``.json`` file holds one dialogue, or a list of them, a ``.jsonl`` file one a line; each is a
    list of messages, or ``{"id": …, "messages": […]}``.

    Raises:
        DataError: Naming the dialogue that is none.
    """
    from affectlens.datasets.tables.text_files import read_text

    text = read_text(path)
    try:
        if path.suffix.lower() == ".jsonl":
            found: Any = parse_jsonl(text)
        else:
            found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}); give it one dialogue a line.") from None
    if isinstance(found, Mapping) or (found and _is_message(found[0])):
        found = [found]
    if not isinstance(found, list) or not found:
        raise DataError(f"{path} holds no dialogue; give a list of messages with role and content.")
    chats: dict[str, tuple[Message, ...]] = {}
    for i, one in enumerate(found):
        name = str(one.get("id", i)) if isinstance(one, Mapping) else str(i)
        messages = one.get("messages") if isinstance(one, Mapping) else one
        if name in chats:
            raise DataError(f"{path} has two dialogues with the id {name}.")
        chats[name] = _turns(f"{path}, dialogue {name}", messages)
    return chats


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and "role" in value and "messages" not in value


def _turns(where: str, messages: Any) -> tuple[Message, ...]:
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where} has no list of messages; give each a role and a content.")
    turns = list[Message]()
    for message in messages:
        if not (_is_message(message) and isinstance(message.get("content"), str)):
            raise DataError(f"{where}: a message needs a role and a content that is a text.")
        try:
            turns.append(Message(str(message["role"]), message["content"]))
        except Exception as error:
            raise type(error)(f"{where}: {error}") from None
    said = [turn.role for turn in turns if turn.role != "system"]
    alternate = all(role == _TURNS[i % 2] for i, role in enumerate(said))
    if not said or not alternate or "system" in [turn.role for turn in turns[1:]]:
        raise DataError(
            f"{where}: user and assistant take turns, the user first, behind one system message at "
            f"most; it has {', '.join(turn.role for turn in turns)}."
        )
    return tuple(turns)


@dataclass(frozen=True, eq=False)
class Turn:
    """One turn as the probe reads it.

    Attributes:
        chat: Name of its dialogue.
        number: From 0.
        role: ``"user"`` or ``"assistant"``.
        text: What is said.
        p: Calibrated probabilities where it stands.
        alone: The same without the turns before.
        labels: Which hold the true one as often as asked.
    """

    chat: str
    number: int
    role: str
    text: str
    p: Floats
    alone: Floats
    labels: tuple[str, ...]

    def row(self, classes: Sequence[str]) -> Row:
        """For a table."""
        names = {"dialogue": self.chat, "turn": self.number, "role": self.role, "text": self.text}
        return {
            **names,
            "read": classes[int(self.p.argmax())],
            "labels": ", ".join(self.labels),
            "read_alone": classes[int(self.alone.argmax())],
            **dict(zip(classes, self.p.tolist(), strict=True)),
        }


def read_turns(
    model: LanguageModel,
    probe: Probe,
    chats: Mapping[str, Sequence[Message]],
    coverage: float,
) -> list[Turn]:
    """Read every turn of dialogues, where it stands and without the turns before it."""
    found: list[Turn] = []
    within: list[tuple[str, tuple[Message, ...]]] = []
    alone: list[tuple[str, tuple[Message, ...]]] = []
    places: list[tuple[str, int, Message]] = []
    for name, messages in chats.items():
        opening = tuple(m for m in messages if m.role == "system")
        turns = [m for m in messages if m.role != "system"]
        for i, turn in enumerate(turns):
            key = f"{name}/{i}"
            places.append((name, i, turn))
            within.append((key, (*opening, *turns[: i + 1])))
            alone.append((key, (*turns[i - i % 2 : i], turn)))
    read, bare = _scores(model, probe, within), _scores(model, probe, alone)
    p, apart = (probe.probabilities(one).double().numpy() for one in (read, bare))
    sets = probe.label_sets(read, coverage)
    for i, (name, number, turn) in enumerate(places):
        labels = tuple(n for n, own in zip(probe.classes, sets[i], strict=True) if own)
        found.append(Turn(name, number, turn.role, turn.content, p[i], apart[i], labels))
    return found


def _scores(
    model: LanguageModel, probe: Probe, chats: Sequence[tuple[str, tuple[Message, ...]]]
) -> torch.Tensor:
    """Of the last turn of each chat, in their order; what a model reads of it sees no later one."""
    from affectlens.activations import capture

    scores = torch.empty(len(chats), len(probe.classes))
    for role, design, position in (
        ("user", "texts", "mean:user"),
        ("assistant", "replies", "mean:reply"),
    ):
        mine = [i for i, (_, turns) in enumerate(chats) if turns[-1].role == role]
        if mine:
            records = tuple(
                Record(chats[i][0], chats[i][1], None, None, chats[i][0], "", "test") for i in mine
            )
            corpus = Corpus("dialogues", design, records)
            store = capture(model, corpus, sites=probe.site, positions=position)
            scores[mine] = probe.scores(store.to_torch(probe.site, position)).float()
    return scores


def _lines(turns: Sequence[Turn], classes: Sequence[str]) -> list[Row]:
    return [
        line(turn.chat, label, turn.number, "probability", turn.p[i], beside=float(turn.alone[i]),
             control=ALONE, rows=1, groups=1)
        for turn in turns
        for i, label in enumerate(classes)
    ]  # fmt: skip


def _over_dialogues(
    turns: Sequence[Turn], classes: Sequence[str], request: DialogueRequest
) -> list[Row]:
    """Means of each turn over dialogues, and how often a reply reads as the message before it."""
    chats = list(dict.fromkeys(turn.chat for turn in turns))
    if len(chats) < 2:
        return []
    draws, seed = request.draws, request.seed
    found: list[Row] = []
    for number in range(1 + max(turn.number for turn in turns)):
        there = [turn for turn in turns if turn.number == number]
        names = [turn.chat for turn in there]
        for i, label in enumerate(classes):
            values = np.array([turn.p[i] for turn in there])
            found.append(
                line(EVERY, label, number, "probability",
                     beside=float(np.mean([turn.alone[i] for turn in there])), control=ALONE,
                     **mean_with_interval(values, names, draws, seed))
            )  # fmt: skip
    pairs = [
        (before, turn)
        for before, turn in pairwise(turns)
        if turn.role == "assistant" and turn.chat == before.chat
    ]
    if pairs:
        said = np.array([int(turn.p.argmax()) for _, turn in pairs])
        heard = np.array([int(before.p.argmax()) for before, _ in pairs])
        names = [turn.chat for _, turn in pairs]
        chance, p = agreement_by_chance(said, heard, names, draws)
        same = (said == heard).astype(np.float64)
        found.append(
            line(EVERY, "reply", "reads as the message before it", "share", p=p, beside=chance,
                 control="by frequency alone", **mean_with_interval(same, names, draws, seed))
        )  # fmt: skip
    return found
