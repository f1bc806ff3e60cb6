"""``affectlens probe fit`` and ``read`` on a tiny model, and the probe in a pack."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import affectlens as al
from affectlens.cli import app
from affectlens.core.errors import DataError, MismatchError
from affectlens.core.places import Site
from affectlens.models import load_model
from affectlens.probes import Probe, fit_probe
from affectlens.probes.estimators.mlp import MLPFit
from affectlens.steering import SteeringPack
from affectlens.steering.gates import probabilities
from tests.probes.test_probe import texts_corpus
from tests.steering.oracle import random_pack
from tests.tiny_run import save_model


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["probe", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a model and a store of short texts, nothing else."""
    out = tmp_path_factory.mktemp("run")
    save_model(out)
    model = load_model(str(out / "model"), dtype="float32")
    store = out / "activations" / "replies"
    al.capture(model, texts_corpus(), sites="resid_post@1,resid_post@0", out=store)
    assert run("fit", "--run", out, "--site", "resid_post@1", "--held-out", 0.4).exit_code == 0
    return out


def test_a_probe_is_fitted_judged_and_saved(folder: Path, tmp_path: Path) -> None:
    found = Probe.load(folder / "probe.safetensors")
    assert found.site == Site(1, "resid_post") and found.after is not None
    said = run("fit", "--run", folder, "--held-out", 0.4, "--save", tmp_path / "p.safetensors",
               "--probe", "lda", "--calibration", "isotonic", "--json")  # fmt: skip
    rows = [json.loads(line) for line in said.output.splitlines() if line.startswith("{")]
    assert [row["probabilities"] for row in rows] == ["as claimed", "isotonic"]
    assert Probe.load(tmp_path / "p.safetensors").kind == "lda"
    shown = run("fit", "--run", folder, "--site", "resid_post@1", "--held-out", 0.4)
    assert "log-loss" in shown.output and "judged on 8 (test split)" in shown.output


def test_texts_are_read_in_terminal_json_and_page(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "read.html"
    shown = run("read", "--run", folder, "--text", "I am <b>angry</b>", "--text", "I am sad",
                "--html", page, "--coverage", 0.5, "--device", "cpu")  # fmt: skip
    assert shown.exit_code == 0 and "I am <b>angry</b>" in shown.output
    assert "labels:" in shown.output and str(page) in shown.output.replace("\n", "")
    html = page.read_text(encoding="utf-8")
    assert "<b>" not in html and "&lt;" in html and "<script" not in html
    assert not re.findall(r"(?:src|href)=", html) and html.count("<h2>") == 2
    probe = Probe.load(folder / "probe.safetensors")
    model = load_model(str(folder / "model"), dtype="float32")
    wanted = probe.read(model, ["I am angry", "I am sad"])
    lines = tmp_path / "texts.txt"
    lines.write_text("I am angry\n\nI am sad\n", encoding="utf-8")
    said = run("read", "--run", folder, "--file", lines, "--json", "--dtype", "float32")
    rows = [json.loads(line) for line in said.output.splitlines() if line.startswith("{")]
    for row, own in zip(rows, wanted.texts, strict=True):
        np.testing.assert_allclose([row[n] for n in wanted.classes], own.of_text, atol=1e-5)
        assert [token[0] for token in row["tokens"]] == list(own.tokens)
    corpus = tmp_path / "own.csv"
    corpus.write_text("text,emotion\nI am angry,odd\nI am sad,even\n", encoding="utf-8")
    table = run("read", "--run", folder, "--file", corpus, "--json", "--dtype", "float32")
    again = [json.loads(line) for line in table.output.splitlines() if line.startswith("{")]
    assert [r["anger"] for r in again] == pytest.approx([r["anger"] for r in rows], abs=1e-5)


def test_directions_are_tried_and_saved(folder: Path, tmp_path: Path) -> None:
    """On short replies of one's own; what the numbers are is tested with the study itself."""
    from affectlens.activations import ActivationStore
    from affectlens.circuits.causal_table import CausalTable
    from affectlens.probes import sweep

    tones = ("anger", "fear", "happiness", "sadness")
    rows = [
        {
            "id": f"{g}:{e}",
            "messages": [
                {"role": "user", "content": f"The train was late {g} times."},
                {"role": "assistant", "content": f"It was {e[:2]} for me. Nobody {e[2:4]} it."},
            ],
            "emotion": e,
            "group": f"g{g}",
            "split": "test",
        }
        for g in range(3)
        for e in tones
    ]
    corpus = tmp_path / "own.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    store = ActivationStore.open(folder / "activations" / "replies")
    sweep(store, draws=5, penalties=(0.1,), folds=3).save(folder / "probes.safetensors")
    asked = ["--corpus", corpus, "--tasks", "carry_over", "--emotions", "anger,fear"]
    done = run("causal", "--run", folder, *asked, "--layers", 1, "--draws", 2, "--dtype", "float32")
    assert done.exit_code == 0, done.output
    found = CausalTable.load(folder / "causal.json")
    assert [(row.site, row.emotion) for row in found.rows] == [
        ("blocks.1.hook_resid_post", "anger"),
        ("blocks.1.hook_resid_post", "fear"),
    ]
    assert found.rows[0].cosine is None and "LEACE" in done.output and "Saved" in done.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["read", "--text", "a", "--file", "b"], "either --text"),
        (["read"], "either --text"),
        (["read", "--text", "a", "--run", "nowhere"], "There is no store"),
        (["read", "--text", "a", "--probe", "nowhere"], "There is no file nowhere"),
        (["read", "--file", "nowhere.txt"], "There is no file nowhere.txt"),
        (["read", "--text", "a", "--coverage", "2"], "between 0 and 1"),
        (["fit", "--pack", "a"], "both --pack and --pack-out"),
        (["fit", "--probe", "logistc"], "Unknown probe 'logistc'"),
        (["fit", "--site", "resid_post@7"], "Unknown"),
        (["causal", "--run", "nowhere"], "There are no probes"),
        (["causal", "--layers", "1,a"], "--layers takes rising numbers"),
        (["causal", "--tasks", "carry"], "Unknown task 'carry'"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    folder: Path, arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("affectlens.models.load_model", lambda *_: pytest.fail("loaded"))
    if "--run" not in arguments:
        arguments = [*arguments, "--run", str(folder)]
    done = run(*arguments)
    assert done.exit_code == 1 and done.output.count("Error: ") == 1
    assert sentence in done.output


def test_a_pack_carries_the_calibrated_probe(tiny_model: Any, tmp_path: Path) -> None:
    """What servers compute of the file, a softmax of weights and bias, is what the probe says."""
    model = tiny_model()
    store = al.capture(model, texts_corpus(), sites="resid_post@0,resid_post@1")
    fitted = [
        fit_probe(store, f"resid_post@{layer}", penalties=(0.1,), folds=2, held_out=0.4)
        for layer in (0, 1)
    ]
    fitted[1].save(tmp_path / "probe.safetensors")
    random_pack(model).save(tmp_path / "pack.safetensors")
    from affectlens.pipeline.probe_reading import into_pack

    out = into_pack(fitted[1], tmp_path / "pack.safetensors", tmp_path / "read.safetensors")
    pack = SteeringPack.load(out, model)
    assert pack.readout is not None and pack.readout.layers == (1,)
    x = store.to_torch(Site(1, "resid_post"))
    served = probabilities(x, pack.readout.weights[0], pack.readout.bias[0])
    torch.testing.assert_close(served, fitted[1].probabilities(fitted[1].scores(x)))
    claimed = fitted[1].probabilities(fitted[1].scores(x), calibrated=False)
    assert float((served - claimed).abs().max()) > 0.01
    both = random_pack(model).with_readout(fitted)
    assert both.readout is not None and both.readout.layers == (0, 1)
    assert random_pack(model).with_readout(fitted, 0).readout.layers == (0,)  # type: ignore[union-attr]
    with pytest.raises(MismatchError, match="made for model"):
        random_pack(tiny_model("qwen3")).with_readout(fitted[0])
    with pytest.raises(DataError, match="one probe after a block"):
        random_pack(model).with_readout([fitted[0], fitted[0]])
    with pytest.raises(DataError, match="same classes"):
        random_pack(model).with_readout([fitted[0], replace(fitted[1], classes=("a", "b"))])
    net = MLPFit(*(torch.zeros(1, 1, 1, *shape) for shape in ((32, 2), (2,), (2, 4), (4,))))
    with pytest.raises(DataError, match="not linear"):
        random_pack(model).with_readout(replace(fitted[0], kind="mlp", fitted=net))
