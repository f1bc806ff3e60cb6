"""Turns of dialogues as a plain forward pass has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import affectlens as al
from affectlens.cli import app
from affectlens.core.errors import AffectLensError
from affectlens.probes import fit_probe
from affectlens.sweeps.studies import DialogueRequest, dialogue, read_dialogues
from affectlens.sweeps.studies.dialogue import EVERY
from tests.sweeps.studies.conftest import hidden

CHATS = [
    [
        {"role": "system", "content": "You are calm."},
        {"role": "user", "content": "I am so angry about the train."},
        {"role": "assistant", "content": "That is a lovely surprise."},
        {"role": "user", "content": "No, I am sad and afraid."},
        {"role": "assistant", "content": "Oh dear, I am sad as well."},
    ],
    [
        {"role": "user", "content": "Thank you! I feel happy."},
        {"role": "assistant", "content": "So do I today."},
    ],
]


def save(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def probe(model: Any, known: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = al.capture(model, known.load(), sites="resid_post@1", positions="mean:reply")
    path = tmp_path_factory.mktemp("probe") / "probe.safetensors"
    fit_probe(store, penalties=(1.0,), folds=3).save(path)
    return path


@pytest.fixture(scope="module")
def found(probe: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    chats = save(tmp_path_factory.mktemp("chats") / "chats.json", CHATS)
    return dialogue(DialogueRequest(probe, chats, device="cpu", dtype="float32", draws=50))


def test_turns_are_read_as_in_one_pass_over_the_whole_dialogue(
    files: dict[str, str], probe: Path, found: Any
) -> None:
    fitted = al.Probe.load(probe)
    assert len(found.tables["turns"]) == 6
    for name, chat in enumerate(CHATS):
        mean = hidden(files["model"], chat)
        said = [m for m in chat if m["role"] != "system"]
        for i, turn in enumerate(said):
            p = fitted.probabilities(fitted.scores(mean(turn["content"])[None]))[0]
            for j, label in enumerate(fitted.classes):
                (row,) = found.where(panel=str(name), series=label, x=i)
                assert row["value"] == pytest.approx(float(p[j]), abs=2e-4)
            x = hidden(files["model"], said[i - i % 2 : i + 1])(turn["content"])
            q = fitted.probabilities(fitted.scores(x[None]))[0]
            (row,) = found.where(panel=str(name), series=fitted.classes[0], x=i)
            assert row["beside"] == pytest.approx(float(q[0]), abs=2e-4)
    first = found.where(panel="1", x=0)
    assert all(row["value"] == pytest.approx(row["beside"], abs=1e-5) for row in first)


def test_means_over_dialogues_have_intervals_and_replies_a_chance(found: Any) -> None:
    classes = found.facts["classes"]
    for label in classes:
        both = [found.where(panel=str(n), series=label, x=1)[0]["value"] for n in range(2)]
        (row,) = found.where(panel=EVERY, series=label, x=1)
        assert row["value"] == pytest.approx(sum(both) / 2) and row["groups"] == 2
        assert row["low"] <= row["value"] <= row["high"]
    (same,) = found.where(panel=EVERY, series="reply")
    turns = found.tables["turns"]
    pairs = [(turns[i]["read"], turns[i + 1]["read"]) for i in (0, 2, 4)]
    assert same["value"] == pytest.approx(sum(a == b for a, b in pairs) / 3)
    assert same["rows"] == 3 and 0.5 <= same["p"] <= 1  # two dialogues show nothing


def test_the_command_takes_a_chat_and_writes_everything(probe: Path, tmp_path: Path) -> None:
    chats = save(tmp_path / "one.json", CHATS[0])
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app,
        ["probe", "study", "dialogue", "--probe", str(probe), "--chats", str(chats), "--out",
         str(out), "--dtype", "float32"],
        env={"COLUMNS": "200"},
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "I am so angry" in done.output and "report.html" in done.output
    for name in ("dialogue.parquet", "dialogue.json", "turns.parquet", "figures/dialogue.html"):
        assert (out / name).is_file()
    assert "Turn by turn" in (out / "report.html").read_text()


def test_files_of_dialogues(tmp_path: Path) -> None:
    lines = tmp_path / "chats.jsonl"
    both = [CHATS[0], {"id": "b", "messages": CHATS[1]}]
    lines.write_text("\n".join(json.dumps(chat) for chat in both))
    assert list(read_dialogues(lines)) == ["0", "b"]
    assert len(read_dialogues(save(tmp_path / "one.json", {"messages": CHATS[1]}))["0"]) == 2
    user = CHATS[1][0]
    cases: list[tuple[Any, str]] = [
        ([], "holds no dialogue"),
        ({"id": "a"}, "dialogue a has no list of messages"),
        ([[user, user]], "user and assistant take turns"),
        ([[CHATS[1][1]]], "the user first"),
        ([[CHATS[0][0]]], "take turns"),
        ([[{**user, "role": "usr"}]], "message role 'usr'"),
        ([[{**user, "content": " "}]], "message is empty"),
        ([[{"role": "user", "content": [1]}]], "content that is a text"),
        ([{"id": 1, "messages": [user]}, {"id": 1, "messages": [user]}], "two dialogues"),
    ]
    for value, sentence in cases:
        with pytest.raises(AffectLensError, match=sentence) as caught:
            read_dialogues(save(tmp_path / "bad.json", value))
        assert "\n" not in str(caught.value)
    (tmp_path / "bad.json").write_text("no json")
    with pytest.raises(AffectLensError, match="is no JSON"):
        read_dialogues(tmp_path / "bad.json")
