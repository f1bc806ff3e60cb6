"""Packs passed on: cards, folders, the hub (a server on this machine), the box."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from affectlens.core import (
    AffectLensError,
    ArtefactError,
    DataError,
    MismatchError,
    UnknownNameError,
)
from affectlens.pipeline.pack_cards import told_of
from affectlens.steering import SteeringPack
from affectlens.steering.packs import PackCard, located, packs_in, pull, push, verify
from affectlens.steering.packs.card import Told, card_file
from tests.steering.hub_server import hub
from tests.steering.oracle import random_pack

TOLD = Told(licence="CC-BY-4.0", use="tests", scores={"residual": {"accuracy": 0.5}},
            doses_tried={"residual": (0.5, 2.0)}, corpora=("replies",))  # fmt: skip


@pytest.fixture
def file(tiny_model: Any, tmp_path: Path) -> Path:
    path = tmp_path / "made" / "moods.safetensors"
    random_pack(tiny_model("llama")).save(path)
    return path


def test_a_pack_pushed_to_a_folder_is_pulled_elsewhere_and_says_what_it_is(
    file: Path, tmp_path: Path, tiny_model: Any
) -> None:
    model, shared = tiny_model("llama"), tmp_path / "shared"
    name, card = push(file, f"file:{shared}/team/moods", TOLD)
    assert name == f"file:{shared}/team/moods.safetensors"
    (shared / "elsewhere").mkdir()
    assert packs_in(f"file:{shared}") == [(name, card)]
    assert verify(name)[1] == card and verify(f"file:{shared}/team")[1] == card
    there = pull(name, tmp_path / "new" / "mine.safetensors")
    pack, again = verify(there)
    assert again == card and there.read_bytes() == file.read_bytes()
    assert pack.fingerprint == random_pack(model).fingerprint
    with SteeringPack.load(there, model).steer(model, "anger=1"):
        model.generate("My train", max_new_tokens=2)


def test_a_card_holds_what_is_so(file: Path, tmp_path: Path, tiny_model: Any) -> None:
    model = tiny_model("llama")
    push(file, f"file:{tmp_path / 'shared'}/", TOLD)
    raw = json.loads((tmp_path / "shared" / "moods.card.json").read_text())
    content = file.read_bytes()
    pack = random_pack(model)
    assert raw["sha256"] == hashlib.sha256(content).hexdigest() and raw["bytes"] == len(content)
    assert (raw["model"], raw["model_fingerprint"]) == ("tiny", model.fingerprint)
    assert (raw["n_layers"], raw["d_model"]) == (model.n_layers, model.d_model)
    assert raw["labels"] == list(pack.emotions) and raw["label_set"] == ""
    assert raw["doses"] == {mode: dict(pack.recommended[mode]) for mode in pack.modes}
    assert raw["positions"] == dict(pack.positions) and raw["fingerprint"] == pack.fingerprint
    assert raw["told"]["licence"] == "CC-BY-4.0" and raw["told"]["corpora"] == ["replies"]
    assert raw["told"]["doses_tried"] == {"residual": [0.5, 2.0]} and raw["card_version"] == 1


def test_a_pack_is_held_against_its_card_when_it_is_loaded(file: Path, tmp_path: Path) -> None:
    path = Path(push(file, f"file:{tmp_path / 'shared'}/", TOLD)[0].partition(":")[2])
    card = card_file(path)
    good, text = path.read_bytes(), card.read_text()
    SteeringPack.load(path)
    path.write_bytes(good[:-4] + b"\0\0\0\1")  # another number at the end
    with pytest.raises(MismatchError, match="is not the pack"):
        SteeringPack.load(path)
    path.write_bytes(good)
    # Checksum right, contents told wrongly: whoever wrote the card lied.
    wrong = {"labels": ["joy", "fear", "happiness"], "model": "another", "n_layers": 7,
             "model_fingerprint": "0" * 16, "doses": {"residual": {}}}  # fmt: skip
    for name, value in wrong.items():
        card.write_text(json.dumps({**json.loads(text), name: value}))
        with pytest.raises(MismatchError, match=f"{name} is"):
            verify(path)
    for damage in ("{", "[]", "{}", json.dumps({**json.loads(text), "told": 3})):
        card.write_text(damage)
        with pytest.raises(ArtefactError, match="card"):
            SteeringPack.load(path)
    card.write_text(json.dumps({**json.loads(text), "card_version": 2}))
    with pytest.raises(ArtefactError, match="newer"):
        SteeringPack.load(path)
    card.unlink()
    SteeringPack.load(path)
    with pytest.raises(ArtefactError, match="no card"):
        verify(path)


def test_saving_a_pack_takes_the_card_of_another_away(file: Path, tmp_path: Path) -> None:
    path = Path(push(file, f"file:{tmp_path / 'shared'}/", TOLD)[0].partition(":")[2])
    SteeringPack.load(path).with_recommended("residual", 2.0).save(path)
    assert not card_file(path).exists()
    assert SteeringPack.load(path).recommended["residual"]["anger"] == 2


def test_what_was_pulled_is_passed_on_with_its_card(file: Path, tmp_path: Path) -> None:
    name, card = push(file, f"file:{tmp_path / 'a'}/", TOLD)
    there = pull(name, tmp_path / "b" / "x.safetensors")
    assert push(there, f"file:{tmp_path / 'c'}/")[1].told == card.told == TOLD
    assert told_of(there, licence="MIT").licence == "MIT" and told_of(there).use == "tests"


def test_a_pack_of_a_run_brings_its_scores(file: Path) -> None:
    path = file.with_name("pack.safetensors")
    path.write_bytes(file.read_bytes())
    assert told_of(path).scores == {}
    arm = {"accuracy": 0.7, "masked_accuracy": 0.4, "perplexity_ratio": 2, "topic": 0.3, "n": 9}
    arms = {"unsteered": arm, "residual": {**arm, "accuracy": 0.8}, "other": {}}
    path.with_name("metrics.json").write_text(json.dumps({"corpus": "authored", "arms": arms}))
    points = [{"arm": "residual", "emotion": "anger", "strength": s} for s in (0.6, 1.2, 0.3)]
    path.with_name("tuning.json").write_text(json.dumps({"points": points}))
    told = told_of(path)
    assert told.corpora == ("authored",) and set(told.scores) == {"unsteered", "residual"}
    assert told.scores["residual"]["accuracy"] == 0.8
    assert told.scores["residual"]["masked_accuracy"] == 0.4
    assert told.doses_tried == {"residual": (0.3, 1.2)}
    assert told_of(file).scores == {}  # lies there too, but is not what was measured
    path.with_name("tuning.json").write_text("{}")
    with pytest.raises(ArtefactError, match="not of a finished run"):
        told_of(path)


def test_another_pack_is_not_overwritten(file: Path, tmp_path: Path) -> None:
    shared = f"file:{tmp_path / 'shared'}/"
    push(file, shared)
    push(file, shared)  # the same once more
    SteeringPack.load(file).with_recommended("residual", 3.0).save(file)
    with pytest.raises(ArtefactError, match="--force"):
        push(file, shared)
    push(file, shared, force=True)
    assert verify(f"{shared}moods")[0].recommended["residual"]["fear"] == 3


def test_names_that_are_none_are_refused(file: Path, tmp_path: Path) -> None:
    for name, error, sentence in (
        ("box:nothing", UnknownNameError, "pack in the box"),
        ("file:/nowhere/x", ArtefactError, "no pack"),
        ("hub:owner", DataError, "owner/repo/file"),
        ("hub:owner/repo", DataError, "owner/repo/file"),
        ("hub:owner/repo/../x", DataError, "owner/repo/file"),
        ("/nowhere/pack.safetensors", ArtefactError, "no pack"),
    ):
        with pytest.raises(error, match=sentence) as caught:
            pull(name, tmp_path / "x.safetensors")
        assert "\n" not in str(caught.value)
    for name in ("box:mine", "nowhere", "toy:x"):
        with pytest.raises(UnknownNameError, match="place for packs"):
            push(file, name)
    with pytest.raises(DataError, match="names no place"):
        push(file, "file:")
    with pytest.raises(UnknownNameError, match="source of packs"):
        packs_in("nowhere")
    with pytest.raises(ArtefactError, match="no folder"):
        packs_in("file:/nowhere")
    push(file, f"file:{tmp_path / 'shared'}/a")
    push(file, f"file:{tmp_path / 'shared'}/b")
    with pytest.raises(ArtefactError, match="several"):
        located(f"file:{tmp_path / 'shared'}")
    with pytest.raises(DataError, match="ends in"):
        pull(f"file:{tmp_path / 'shared'}/a", tmp_path / "x.pt")
    assert not list(tmp_path.glob("x.*"))


def test_the_box_is_read(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("affectlens.steering.packs.sources.box.folder", lambda: tmp_path / "box")
    assert packs_in("box:") == []
    push(file, f"file:{tmp_path / 'box'}/")
    ((name, card),) = packs_in()
    assert name == "box:moods" and verify(name)[1] == card
    assert located(name) == tmp_path / "box" / "moods.safetensors"


def test_every_pack_that_comes_along_is_what_its_card_says() -> None:
    for name, _ in packs_in("box:"):
        _, card = verify(name)
        assert card.told.licence != "not stated" and card.told.scores


def _at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub with ``owner/repo``, and a cache of its own."""
    (tmp_path / "hub" / "owner" / "repo").mkdir(parents=True)
    with hub(tmp_path / "hub") as address:
        _at(address, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        yield address


def test_a_pack_comes_from_the_hub(file: Path, tmp_path: Path, endpoint: str) -> None:
    repo = tmp_path / "hub" / "owner" / "repo"
    _, card = push(file, f"file:{repo}/emotions/moods", TOLD)
    for name in ("hub:owner/repo/emotions/moods", "hub:owner/repo@main/emotions/moods.safetensors"):
        there = pull(name, tmp_path / "x.safetensors")
        assert verify(there)[1] == card and there.read_bytes() == file.read_bytes()
    found = packs_in("hub:owner/repo")
    assert found == [("hub:owner/repo/emotions/moods.safetensors", card)]
    # Changed on the way: nothing is written.
    (repo / "emotions" / "moods.safetensors").write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(MismatchError, match="is not the pack"):
        pull("hub:owner/repo/emotions/moods", tmp_path / "y.safetensors")
    assert not list(tmp_path.glob("y.*"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hub:owner/nothing/x", "no repository owner/nothing"),
        ("hub:owner/repo/nothing", "no pack nothing.safetensors"),
        ("hub:owner/repo@v9/x", "no revision v9"),
        ("hub:ow ner/repo/x", "no name on the hub"),
    ],
)
def test_what_the_hub_lacks_is_told(
    name: str, sentence: str, endpoint: str, tmp_path: Path
) -> None:
    with pytest.raises(AffectLensError, match=sentence) as caught:
        pull(name, tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("x.*"))


def test_a_pack_without_a_card_does_not_come_from_the_hub(
    file: Path, tmp_path: Path, endpoint: str
) -> None:
    (tmp_path / "hub" / "owner" / "repo" / "moods.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(ArtefactError, match=r"moods.card.json"):
        pull("hub:owner/repo/moods", tmp_path / "x.safetensors")


def test_offline_it_says_so_in_one_sentence(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for endpoint, offline in (("http://127.0.0.1:9", False), ("http://127.0.0.1:9", True)):
        _at(endpoint, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        for act in (
            lambda: pull("hub:owner/repo/moods", tmp_path / "x.safetensors"),
            lambda: packs_in("hub:owner/repo"),
            lambda: push(file, "hub:owner/repo"),
        ):
            with pytest.raises(ArtefactError, match="cannot be reached") as caught:
                act()
            assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("x.*"))


def test_a_pack_and_its_card_are_published_in_one_commit(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told to the hub's client; no hub that takes files is at hand."""
    import huggingface_hub

    told: list[Any] = []

    class Api:
        def __init__(self, **_: Any) -> None:
            pass

        def create_repo(self, repo: str, exist_ok: bool) -> None:
            told.append((repo, exist_ok))

        def file_exists(self, *_: Any, **__: Any) -> bool:
            return len(told) > 3

        def create_commit(self, repo: str, operations: Any, **_: Any) -> None:
            told.append((repo, {o.path_in_repo: Path(o.path_or_fileobj) for o in operations}))
            card = told[-1][1]["sub/moods.card.json"]
            told.append(PackCard.read(card))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    name, card = push(file, "hub:owner/repo/sub/moods", TOLD)
    assert name == "hub:owner/repo/sub/moods.safetensors"
    assert told[0] == ("owner/repo", True) and told[1][1]["sub/moods.safetensors"] == file
    assert told[2] == card and card.told == TOLD
    with pytest.raises(ArtefactError, match="--force"):
        push(file, "hub:owner/repo/sub/moods", TOLD)
    push(file, "hub:owner/repo/sub/moods", TOLD, force=True)
