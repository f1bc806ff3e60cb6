"""A label set of one's own goes with a corpus through every stage, and on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from affectlens.activations import ActivationStore, capture
from affectlens.circuits import find_circuit
from affectlens.cli import app
from affectlens.core import TONES, DataError, UnknownNameError
from affectlens.datasets import Corpus, load
from affectlens.datasets.loaders.goemotions import LABELS
from affectlens.geometry import directions
from affectlens.geometry.streaming import stream_directions
from affectlens.pipeline.corpus_files import load_corpus, save_corpus
from affectlens.probes import sweep
from affectlens.serving.contract import KEY
from affectlens.serving.settings import Settings
from affectlens.serving.vllm.front_door import FrontDoor
from affectlens.steering import SteeringPack
from tests.on_disk import save_model

PLUTCHIK = ("joy", "trust", "fear", "surprise", "sadness", "disgust", "anger", "anticipation")
COMMENTS = tuple(label for label in LABELS if label != "neutral")


def own(folder: Path, labels: tuple[str, ...], n: int = 6, **options: Any) -> Corpus:
    """Each label under each of ``n`` contents, written with a capital."""
    words = ["one", "two two", "three", "and four", "five", "six of it"]
    rows = [
        f"{label} {words[(g + i) % 6]} thing {g},{label.capitalize()},g{g}"
        for g in range(n)
        for i, label in enumerate(labels)
    ]
    path = folder / "own.csv"
    path.write_text("text,Emotion,group\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return load(path, **({"emotions": labels} | options))


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model("llama")


@pytest.mark.parametrize("labels", [PLUTCHIK, COMMENTS], ids=["eight", "many"])
def test_every_stage_has_all_labels(model: Any, tmp_path: Path, labels: tuple[str, ...]) -> None:
    corpus = own(tmp_path, labels)
    assert corpus.label_set == corpus.labels() == labels
    save_corpus(corpus, tmp_path / "saved.jsonl")
    assert load_corpus(tmp_path / "saved.jsonl") == corpus
    capture(model, corpus, out=tmp_path / "store")
    store = ActivationStore.open(tmp_path / "store")
    assert store.label_set == labels
    assert set(sweep(store, sites="resid_post@0", folds=3).classes) == set(labels)
    found = directions(store)
    streamed = stream_directions(model, corpus)
    assert found.emotions == streamed.emotions == labels
    pack = SteeringPack.from_directions(found, model)
    pack.save(tmp_path / "pack.safetensors")
    pack = SteeringPack.load(tmp_path / "pack.safetensors")
    assert pack.emotions == labels
    for label in labels:
        for spelling in (label, label.capitalize(), label.upper()):
            assert dict(pack.resolve(f"{spelling}=1").weights) == {label: 1.0}


def test_circuits_have_all_labels(model: Any, tmp_path: Path) -> None:
    labels = ("joy", "trust", "fear", "disgust")  # each has a first token of its own
    corpus = own(tmp_path, labels)
    found = stream_directions(model, corpus)
    circuit = find_circuit(model, corpus, found)
    assert circuit.emotions == labels
    assert SteeringPack.from_circuit(circuit, model).emotions == labels
    assert circuit.units("Joy", "neurons") == circuit.neurons["joy"]


def test_own_names_come_before_aliases_at_the_servers_front_door(
    model: Any, tmp_path: Path
) -> None:
    """A pack that has both ``joy`` and ``happiness`` tells them apart."""
    labels = ("joy", "happiness", "trust")
    pack = SteeringPack.from_directions(directions(capture(model, own(tmp_path, labels))), model)
    pack.save(tmp_path / "own.st")
    settings = Settings.of({KEY: {"packs": {"own": str(tmp_path / "own.st")}, "force": True}})
    assert settings is not None
    asked = FrontDoor(settings).understand({KEY: "Joy=1,Happy=2,TRUST=-1"})
    assert asked is not None
    assert dict(pack.resolve(asked.spec).weights) == {"happiness": 2, "joy": 1, "trust": -1}
    with pytest.raises(UnknownNameError, match="anger"):
        FrontDoor(settings).understand({KEY: "anger=1"})


def test_a_selection_narrows_the_label_set(model: Any, tmp_path: Path) -> None:
    store = capture(model, own(tmp_path, PLUTCHIK))
    some = store.select(emotion=["Joy", "trust", "fear"])
    assert some.label_set == ("joy", "trust", "fear") == directions(some).emotions
    again = some.select(split="fit")
    assert again.label_set == some.label_set
    with pytest.raises(UnknownNameError, match="joy"):
        store.select(emotion="happiness")
    with pytest.raises(DataError, match="There are no rows for anger"):
        directions(store.select([label != "anger" for label in store.column("emotion")]))


def test_rows_from_elsewhere(model: Any, tmp_path: Path) -> None:
    store = capture(model, own(tmp_path, PLUTCHIK))
    site = store.sites[0]
    rows = {site: store.to_torch(site)}
    labels = {name: store.column(name) for name in ("emotion", "group", "scenario", "split")}
    assert set(ActivationStore.of(rows, labels).label_set) == set(PLUTCHIK)
    six = {"joy": "happiness", "trust": "neutral", "anticipation": "neutral"}
    labels["emotion"] = [six.get(label, label) for label in labels["emotion"]]
    assert ActivationStore.of(rows, labels).label_set == TONES


def affectlens(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def test_the_command_line_names_a_label_set(tmp_path: Path) -> None:
    own(tmp_path, PLUTCHIK)
    file = tmp_path / "own.csv"
    refused = affectlens("datasets", "check", file)
    assert refused.exit_code == 1 and "--labels any" in refused.stderr
    (tmp_path / "labels.txt").write_text("\n".join(PLUTCHIK) + "\n")
    for labels in (",".join(PLUTCHIK), tmp_path / "labels.txt", "any"):
        shown = affectlens("datasets", "show", file, "--labels", labels)
        assert shown.exit_code == 0, shown.stderr
        assert ('"Joy"' if labels == "any" else '"joy"') in shown.stdout
    wrong = affectlens("datasets", "check", file, "--labels", "joy")
    assert wrong.exit_code == 1 and "neither a file nor several names" in wrong.stderr
    rows = 'text,emotion,who\na,"joy,fear",x\nb,fear,x\n'
    file.write_text(rows)
    assert "several='first'" in affectlens("datasets", "check", file, "--labels", "any").stderr
    done = affectlens("datasets", "check", file, "--labels", "any", "--several", "first")
    assert "Columns that are not read: who" in done.stdout and not done.stderr


def test_captured_from_the_command_line(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    own(tmp_path, PLUTCHIK)
    arguments = ("capture", tmp_path / "model", tmp_path / "own.csv", "--model-dtype", "float32")
    done = affectlens(*arguments, "--out", tmp_path / "s", "--labels", ",".join(PLUTCHIK))
    assert done.exit_code == 0, done.stderr
    store = ActivationStore.open(tmp_path / "s")
    assert store.label_set == PLUTCHIK == directions(store).emotions
    info = affectlens("store", "info", tmp_path / "s").stdout
    assert "joy, trust, fear" in info
    done = affectlens(*arguments, "--out", tmp_path / "j", "--labels", "any", "-e", "joy")
    assert done.exit_code == 0, done.stderr
    assert ActivationStore.open(tmp_path / "j").label_set == ("Joy",)
    ours = affectlens("capture", tmp_path / "model", "tones", "--model-dtype", "float32", "--out",
                      tmp_path / "o", "-e", "joy", "--sites", "resid_post@0")  # fmt: skip
    assert ours.exit_code == 0, ours.stderr
    assert ActivationStore.open(tmp_path / "o").label_set == ("happiness",)
