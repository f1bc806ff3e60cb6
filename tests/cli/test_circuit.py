"""``affectlens circuit ablate`` on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from affectlens.circuits import Circuit, choose
from affectlens.circuits.evidence import AblationCurve
from affectlens.circuits.units import unit_sizes
from affectlens.cli import app
from affectlens.core import EMOTIONS, Provenance
from affectlens.models import load_model
from tests.tiny_run import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a model, a circuit of random units and a corpus of short replies."""
    out = tmp_path_factory.mktemp("run")
    save_model(out)
    rows = [
        {
            "id": f"{g}:{e}",
            "messages": [
                {"role": "user", "content": f"The train was late {g} times."},
                {"role": "assistant", "content": f"It was {e[:2]} for me. Nobody {e[2:4]} it."},
            ],
            "emotion": e,
            "group": f"g{g}",
            "split": "tune" if g < 4 else "fit",
        }
        for g in range(8)
        for e in EMOTIONS
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (out / "own.jsonl").write_text(lines, encoding="utf-8")
    (path,) = [p.parent for p in out.rglob("config.json")]
    model = load_model(str(path), dtype="float32")
    generator = torch.Generator().manual_seed(0)
    shape, width = (len(EMOTIONS), model.n_layers), model.anatomy.width("z")
    neurons = torch.randn(*shape, model.anatomy.d_mlp, generator=generator)
    heads = torch.randn(*shape, model.anatomy.n_heads, generator=generator)
    counts = torch.tensor([1, 4]).expand(*shape, 2).contiguous()
    Circuit(
        emotions=EMOTIONS,
        neurons=choose(neurons, counts[..., 1], EMOTIONS),
        heads=choose(heads, counts[..., 0], EMOTIONS),
        neuron_scores=neurons,
        head_scores=heads,
        delta_neurons=torch.zeros_like(neurons),
        delta_heads=torch.zeros(*shape, width),
        allocation=counts,
        sizes=unit_sizes(model.anatomy),
        routed=torch.zeros(model.n_layers, dtype=torch.long),
        influence=None,
        delta_source="group_mean",
        position="mean:reply",
        provenance=Provenance("circuit", model=model.fingerprint, model_name=str(path)),
    ).save(out / "circuit.safetensors")
    return out


def ablate(folder: Path, *more: str) -> Result:
    small = ("--groups", "3", "--draws", "2", "--counts", "1,2")
    given = {more[i]: more[i + 1] for i in range(0, len(more) - 1, 2)}
    options = dict(zip(small[::2], small[1::2], strict=True)) | given
    flat = [word for pair in options.items() for word in pair] + list(more[len(given) * 2 :])
    own = str(folder / "own.jsonl")
    texts = ["--corpus", own, "--means-corpus", own]
    command = ["circuit", "ablate", "--out", str(folder), "--dtype", "float32", *texts, *flat]
    return CliRunner().invoke(app, command, env={"COLUMNS": "160"})


def test_table_verdict_and_file(folder: Path) -> None:
    done = ablate(folder)
    assert done.exit_code == 0, done.output
    curve = AblationCurve.load(folder / "ablation_neurons_mean.safetensors")
    assert len(curve.scenarios) == 3 and curve.counts == (1, 2)
    for emotion, words in curve.findings().items():
        line = f"{emotion}: necessary: {words['necessary']}"
        assert line in " ".join(done.output.split())
    as_json = ablate(folder, "--save", str(folder / "again.safetensors"), "--counts", "1", "--json")
    rows: list[dict[str, Any]] = [json.loads(line) for line in as_json.stdout.splitlines()]
    wanted = [row for row in curve.table_rows() if row["units"] == 1]
    for row, one in zip(rows, wanted, strict=True):  # other rows beside it in a pass: rounding
        assert row == {k: v if isinstance(v, str) else pytest.approx(v, abs=1e-5)
                       for k, v in one.items()}  # fmt: skip


def test_bad_input_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    for options, says in (
        (("--counts", "4,x"), "takes rising numbers"),
        (("--kind", "experts"), "kind of unit"),
        (("--counts", "1,500"), "neurons for anger, not 500"),
        (("--means-role", "tune"), "share"),
        (("--circuit", str(tmp_path / "none.safetensors")), "There is no circuit"),
    ):
        done = ablate(folder, "--save", str(tmp_path / "x.safetensors"), *options)
        assert done.exit_code == 1 and done.output.count("Error: ") == 1
        assert says in " ".join(done.output.split()), done.output
        assert not (tmp_path / "x.safetensors").exists()


def test_alone_it_is_the_stage(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["circuit", "--model", "none/such", "--out", str(tmp_path)])
    assert done.exit_code == 1 and done.output.count("Error: ") == 1
    assert "none/such" in done.output and "TypeError" not in done.output


def test_evidence_and_show(folder: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["circuit", "show", "--out", str(folder)])
    assert shown.exit_code == 0 and "ranked, untested" in shown.output
    save = str(tmp_path / "parts")
    command = ["circuit", "evidence", "--out", str(folder), "--dtype", "float32", "--groups", "3"]
    command += ["--corpus", str(folder / "own.jsonl"), "--means-corpus", str(folder / "own.jsonl")]
    command += ["--parts", "ablation,identity", "--counts", "1,2", "--draws", "2", "--save", save]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "ablation      done" in done.output and "untested" in done.output
    again = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert "ablation      kept" in again.output and "done" not in again.output
    show = ["circuit", "show", "--out", str(folder), "--save", save]
    shown = CliRunner().invoke(app, [*show, "--json"])
    rows: list[dict[str, Any]] = [json.loads(line) for line in shown.stdout.splitlines()]
    assert rows[0]["evidence"].startswith("necessary ") and rows[0]["neurons"] == 12
    assert rows[1]["file"] == "ablation.safetensors" and rows[1]["texts"] == 3
    part = CliRunner().invoke(app, [*show, "--part", "identity", "--json"])
    assert {json.loads(line)["emotion"] for line in part.stdout.splitlines()} == set(EMOTIONS)
    assert (tmp_path / "parts" / "identity.parquet").is_file()
    for options, says in (
        ([*show, "--part", "faithfulness"], "There is no faithfulness in"),
        ([*("proof" if word == "ablation,identity" else word for word in command)], "part of the"),
        ([*command, "--shares", "1,x"], "--shares takes rising numbers"),
        (["2.5,8" if word == "1,2" else word for word in command], "whole ones, not '2.5,8'"),
        ([*command, "--circuit", str(tmp_path / "none.safetensors")], "There is no circuit"),
    ):
        bad = CliRunner().invoke(app, options, env={"COLUMNS": "200"})
        assert bad.exit_code == 1 and bad.output.count("Error: ") == 1, bad.output
        assert says in " ".join(bad.output.split()), bad.output


def test_hypotheses_stand_below_faithfulness(folder: Path, tmp_path: Path) -> None:
    save = str(tmp_path / "parts")
    texts = [
        word
        for name in ("--corpus", "--means-corpus")
        for word in (name, str(folder / "own.jsonl"))
    ]
    command = ["circuit", "evidence", "--out", str(folder), "--dtype", "float32", "--groups", "4"]
    command += [
        *texts,
        "--parts",
        "faithfulness",
        "--shares",
        "50,100",
        "--draws",
        "2",
        "--save",
        save,
    ]
    assert CliRunner().invoke(app, command).exit_code == 0
    show = [
        "circuit",
        "show",
        "--out",
        str(folder),
        "--save",
        save,
        "--part",
        "faithfulness",
        "--json",
    ]
    rows = [json.loads(line) for line in CliRunner().invoke(app, show).stdout.splitlines()]
    tested = {row["emotion"]: row for row in rows if "sufficiency_p" in row}
    assert set(tested) == set(EMOTIONS)
    assert all(0 < row["sufficiency_p"] <= 1 and row["independence"] for row in tested.values())


def test_two_circuits_compared(folder: Path) -> None:
    file = str(folder / "circuit.safetensors")
    done = CliRunner().invoke(app, ["circuit", "compare", file, file, "--json"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 2 * len(EMOTIONS) and {row["jaccard"] for row in rows} == {1.0}
    bad = CliRunner().invoke(app, ["circuit", "compare", file, str(folder / "none")])
    assert bad.exit_code == 1 and bad.output.count("Error: ") == 1


def test_the_core_alone_has_the_directions_that_are_named(folder: Path, tmp_path: Path) -> None:
    from affectlens.circuits.find import circuit_directions
    from affectlens.datasets import load

    (path,) = [p.parent for p in folder.rglob("config.json")]
    rows = [json.loads(row) for row in (folder / "own.jsonl").read_text("utf-8").splitlines()]
    more = [
        {**row, "id": f"{i}:{row['id']}", "group": f"{i}:{row['group']}"}
        for i in range(3)
        for row in rows
    ]
    own = str(tmp_path / "more.jsonl")
    Path(own).write_text("".join(json.dumps(row) + "\n" for row in more), encoding="utf-8")
    replies = load(own).filter(role="direction")
    circuit_directions(load_model(str(path), dtype="float32"), replies).save(tmp_path / "d")
    command = ["circuit", "evidence", "--out", str(folder), "--dtype", "float32", "--parts", "core"]
    command += ["--corpus", own, "--means-corpus", own, "--groups", "3", "--draws", "2"]
    command += ["--save", str(tmp_path / "parts")]
    bare = CliRunner().invoke(app, command)
    assert bare.exit_code == 1 and "There is no file" in bare.output
    done = CliRunner().invoke(app, [*command, "--directions", str(tmp_path / "d")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "parts" / "core.safetensors").is_file()
