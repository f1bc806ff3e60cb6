"""Whole sweeps: what lies in the folder, what is not done twice, what is refused before a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from affectlens.activations import ActivationStore
from affectlens.cli import app
from affectlens.core import AffectLensError, DataError, UnknownNameError
from affectlens.core.statistics import times_drawn
from affectlens.datasets import load
from affectlens.pipeline.corpus_choice import CorpusChoice
from affectlens.probes import PROBES, NumberSweep, ProbeKind, Sweep, sweep
from affectlens.sweeps import SweepResults, run_sweeps
from affectlens.sweeps.request import parse_names
from affectlens.sweeps.results import compare_cells
from affectlens.sweeps.scale import scale_rows
from tests.conftest import tiny_hf
from tests.sweeps.conftest import EMOTIONS, choice, request, rows, save_rows

PENALTIES: dict[str, Any] = {"penalties": (0.01, 1.0), "draws": 100}


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def test_every_score_of_every_site_is_that_of_a_sweep_of_the_store(whole: Any) -> None:
    asked, found, given = whole
    assert [(c.corpus, c.target, c.probe) for c in found.cells] == [
        ("plain", "emotion", "logistic"),
        ("quoted", "emotion", "logistic"),
    ]
    cell = found.cells[0]
    store = given[0].store
    again = sweep(store, sites=cell.sweep.sites, penalties=(0.01, 1.0), folds=3, draws=100, seed=0)
    assert torch.equal(again.weights, cell.sweep.weights)
    written = [r for r in table(asked.out, "results") if r["corpus"] == "plain"]
    for i, site in enumerate(again.sites):
        for row in again.scores.rows(i):
            (mine,) = [
                r
                for r in written
                if r["site"] == site.hook_name
                and r["score"] == row["score"]
                and r["target"] == "emotion"
            ]
            assert mine["value"] == row["value"] and mine["low"] == row["low"]
            assert mine["chosen"] == (site == again.best)
    depth = {r["site"]: r["depth"] for r in written}
    assert list(depth.values()) == [0.0, 2 / 3]


def test_one_store_per_model_and_corpus_is_shared_by_all_targets(numbers: Any) -> None:
    asked, found, given = numbers
    assert [c.target for c in found.cells] == ["intensity", "size"]
    assert {s.store.fingerprint for s in given} == {given[0].store.fingerprint}
    stores = sorted(p.name for p in (asked.out / "stores").iterdir())
    plain = [s for s in stores if "untrained" not in s and "masked" not in s]
    assert len(plain) == 1
    assert len(ActivationStore.open(asked.out / "stores" / plain[0])) == 36


@pytest.mark.parametrize("which", ["whole", "numbers"])
def test_files_hold_what_was_found(which: str, request: pytest.FixtureRequest) -> None:
    asked, found, _ = request.getfixturevalue(which)
    said = json.loads((asked.out / "results.json").read_text())
    assert len(said["results"]) == len(found.table_rows()) == len(table(asked.out, "results"))
    assert [one["target"] for one in said["best"]] == [c.target for c in found.cells]
    for cell in found.cells:
        kind = NumberSweep if cell.target == "intensity" else Sweep
        loaded = kind.load(asked.out / cell.file)
        assert torch.equal(loaded.weights, cell.sweep.weights)
    counts = np.array(said["confusion"][-1]["counts"])
    assert counts.sum() == len(found.cells[-1].sweep.held)
    figures = sorted(p.name for p in (asked.out / "figures").iterdir())
    page = (asked.out / "report.html").read_text()
    assert "Strengths are chosen" not in page and "http-equiv" in page
    for text in ("Read by depth: accuracy", "Controls"):
        assert text in page
    if which == "whole":
        assert figures == ["depth_accuracy.html", "learning_curves.html", "transfer_1.html"]
        assert "Transfer between corpora" in page and "enough?" in page
    else:
        assert figures == ["depth_accuracy.html", "depth_pearson.html"]
        assert "Read by depth: pearson" in page and "Transfer between" not in page
    assert "sweeps=2" in repr(found)


def test_the_report_is_drawn_again_from_its_numbers(whole: Any) -> None:
    from affectlens.reports.numbers import from_dict, to_dict
    from affectlens.reports.page import render
    from affectlens.sweeps.writing import report_data

    data = report_data(whole[1])
    again = from_dict(json.loads(json.dumps(to_dict(data))))
    assert render(again) == render(data)


def test_what_is_finished_is_neither_read_nor_fitted_again(
    files: dict[str, str], tmp_path: Path
) -> None:
    """Stopped in the middle of the fits, as kill -9 stops it: between two files."""
    calls: list[int] = []
    stop_at = [3]

    def fit(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == stop_at[0]:
            raise KeyboardInterrupt
        return PROBES["logistic"].fit(*args, **options)

    small: dict[str, Any] = {"corpora": (choice(files["plain"]),), "sites": "resid_post"}
    with PROBES.adding(ProbeKind("spy", "counts and stops", fit)):
        asked = request(files, tmp_path / "out", probes=("spy",), **small)
        # A chunk of sites is two fits; the second chunk never ends.
        import affectlens.probes.fitting as fitting

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fitting, "_KEPT_AT_ONCE", 1)
            with pytest.raises(KeyboardInterrupt):
                run_sweeps(asked)
            kept = list((asked.out / "fits").rglob("*.safetensors"))
            assert len(kept) == 1 and len(calls) == 3
            stop_at[0] = 0
            first = run_sweeps(asked)
            assert len(calls) == 3 + 2 * 3  # four sites, of which one was kept
            kept[0].write_bytes(kept[0].read_bytes()[:100])  # a damaged file is as good as none
            second = run_sweeps(asked)
            assert len(calls) == 9 + 2
    straight = sweep(
        ActivationStore.open(next((asked.out / "stores").iterdir())), folds=3, **PENALTIES
    )
    for found in (first, second):
        (cell,) = found.cells
        assert torch.allclose(cell.sweep.weights, straight.weights, atol=1e-4)
        assert cell.sweep.held is not None and straight.held is not None
        assert torch.allclose(cell.sweep.held.outputs, straight.held.outputs, atol=1e-4)
    assert not list(asked.out.rglob("*.tmp"))


def test_pairs_are_compared_on_the_same_rows_and_corrected(whole: Any) -> None:
    _, found, _ = whole
    rows_ = compare_cells(found.cells)
    layers = [r for r in rows_ if r["corpus"] == "plain" and r["target"] == "emotion"]
    assert {r["question"] for r in layers} == {"layers"} and len(layers) == 1
    cell = found.cells[0]
    for row in layers:
        j = [s.hook_name for s in cell.sweep.sites].index(row["other"])
        good = cell.sweep.held.good()
        assert row["difference"] == pytest.approx(float((good[cell.best] - good[j]).mean()))
        assert row["p_holm"] >= row["p"] >= 2.0 ** (1 - row["groups"])


def test_models_and_probes_are_compared(files: dict[str, str], tmp_path: Path) -> None:
    asked = request(
        files,
        tmp_path / "out",
        models=(files["model"], files["other"]),
        corpora=(choice(files["plain"]),),
        probes=("logistic", "ridge"),
        sites="resid_post",
    )
    found = run_sweeps(asked)
    questions = [r["question"] for r in found.comparisons if r["question"] != "layers"]
    assert sorted(questions) == ["models", "models", "probes", "probes"]
    page = (asked.out / "report.html").read_text()
    assert "Models and probes in pairs" in page
    best = found.best_rows()
    assert len(best) == 4 and all(row["score"] == "accuracy" for row in best)
    scale = table(asked.out, "scale")
    assert len(scale) == 4 and "By the size of the model" in page
    assert (asked.out / "figures" / "scale.html").is_file()
    size = sum(p.numel() for p in tiny_hf("llama", max_position_embeddings=1024).parameters())
    cells: Any = found.cells
    for cell in cells:
        (row,) = [r for r in scale if all(r[k] == v for k, v in cell.name.items())]
        (mine,) = [r for r in best if all(r[k] == v for k, v in cell.name.items())]
        assert row["parameters"] == size and row["embeddings"] == float(cell.sweep.accuracy[0])
        assert (row["value"], row["depth"]) == (mine["value"], mine["depth"])
        # Where the best site lies, draw by draw.
        good = cell.sweep.held.good()[1:].double().numpy()
        names = list(dict.fromkeys(cell.sweep.held.groups))
        deepest = []
        for times in times_drawn(len(names), 2000, 0):
            weight = np.array([times[names.index(g)] for g in cell.sweep.held.groups])
            deepest.append((1 + int(np.round(good @ weight, 9).argmax())) / 3)
        found_ends = np.quantile(deepest, (0.025, 0.975), method="inverted_cdf")
        assert (row["peak_low"], row["peak_high"]) == pytest.approx(tuple(found_ends))
    assert not scale_rows(found.cells[:2])  # one model has no size to compare


def test_a_corpus_without_a_test_split_and_a_column_of_ones_own(
    files: dict[str, str], tmp_path: Path
) -> None:
    made = [{**row, "split": "fit"} for row in rows()]
    path = save_rows(tmp_path / "own.jsonl", made)
    done = CliRunner().invoke(
        app,
        ["probe", "sweep", "--model", files["model"], "--corpus", path, "--labels",
         ",".join(EMOTIONS), "--target", "size", "--group", "group", "--folds", "3",
         "--penalties", "0.1", "--sites", "resid_post@1", "--out", str(tmp_path / "out"),
         "--dtype", "float32", "--draws", "20", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout.strip().splitlines()[-1])
    assert row["target"] == "size" and row["held_out"] == "nested cross-validation"
    assert row["rows_held_out"] == 36 and row["penalty"] == 0.1


def test_ratings_of_emobank_are_numbers_and_ours_are_labels() -> None:
    from affectlens.sweeps.corpora import Texts

    ours = Texts("replies", load("replies"))
    assert ours.target("valence").classes == ("neutral", "negative", "positive")  # type: ignore[union-attr]


BAD: list[tuple[dict[str, Any], list[dict[str, Any]], str]] = [
    ({"targets": ("vallence",)}, rows(), "column in .*vallence"),
    ({"targets": ("intensity",), "probes": ("logistic",)}, rows(), "reads numbers .*ridge"),
    ({"targets": ("size",), "probes": ("mlp",)}, rows(), "None of the probes mlp"),
    ({}, [r for r in rows() if r["emotion"] == "anger"], "two different classes"),
    ({}, [r for r in rows() if r["emotion"] != "fear" or r["group"] == "g00"], "Class 'fear'"),
    ({"group": "id"}, rows()[:6], "folds|Class"),
    ({"group": "size"}, rows(), "Cannot make 3 folds of|Class|outside it"),
    ({"group": "colour"}, rows(), "column in .*colour"),
    ({"names": {"joy": "happiness"}}, rows(), "label to rename 'joy'"),
    ({"targets": ("intensity",)},
     [{**r, "intensity": "high" if i else 1} for i, r in enumerate(rows())], "number in some"),
    ({"targets": ("intensity",)}, [{**r, "intensity": float("nan")} for r in rows()],
     "NaN or infinite|column in"),
    ({"targets": ("intensity",)},
     [{**r, "split": "test" if r["group"] > "g09" else "fit",
       "intensity": None if r["group"] > "g09" else r["intensity"]} for r in rows()],
     "test split has no row"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "made", "sentence"), BAD, ids=range(len(BAD)))
def test_bad_input_is_one_sentence_before_a_model_and_nothing_is_written(
    changes: dict[str, Any], made: list[dict[str, Any]], sentence: str, tmp_path: Path
) -> None:
    path = save_rows(tmp_path / "bad.jsonl", made)
    with pytest.raises(AffectLensError, match=sentence) as caught:
        run_sweeps(
            request(
                {"model": "no/such-model", "plain": path, "quoted": path},
                tmp_path / "out",
                **{"corpora": (choice(path),), **changes},
            )
        )
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_requests_that_make_no_sense(tmp_path: Path) -> None:
    files = {"model": "m", "plain": "a.jsonl", "quoted": "b.jsonl"}
    one = (CorpusChoice("replies"),)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"models": ()}, "Name a model"),
        ({"targets": ("emotion", "emotion")}, "named twice"),
        ({"corpora": ()}, "Name a corpus"),
        ({"probes": ("logistc",)}, "probe 'logistc'"),
        ({"controls": ("majorty",)}, "control 'majorty'"),
        ({"corpora": one, "transfer": True}, "two corpora"),
    ]
    for changes, sentence in cases:
        with pytest.raises((DataError, UnknownNameError), match=sentence):
            request(files, tmp_path, **changes)
    assert parse_names(["joy=happiness", "love="]) == {"joy": "happiness", "love": ""}
    for wrong in (["joy"], ["=x"], ["a=b", "a=c"]):
        with pytest.raises(DataError, match="--map"):
            parse_names(wrong)


def test_options_go_to_the_corpora_they_are_meant_for() -> None:
    names = ["mine.csv", "goemotions"]
    mine = CorpusChoice.among("mine.csv", names, ["text=body"], Path("d"), "a,b", "first")
    other = CorpusChoice.among("goemotions", names, ["text=body"], Path("d"), "ekman", "first")
    assert (mine.columns, mine.path, mine.labels, mine.several) == (
        ["text=body"], None, "a,b", "first",
    )  # fmt: skip
    assert (other.columns, other.path, other.labels) == (None, Path("d"), "ekman")
    with pytest.raises(DataError, match="--column is for a file"):
        CorpusChoice.among("replies", ["replies"], ["a=b"], None, None, None)
    with pytest.raises(DataError, match="--path is the folder"):
        CorpusChoice.among("replies", ["replies"], None, Path("d"), None, None)


def test_results_show_themselves(whole: Any) -> None:
    found: SweepResults = whole[1]
    assert found.brief()["corpora"] == 2 and len(found.to_pandas()) == len(found.table_rows())


@pytest.mark.parametrize("models", [("smollm2-135m-instruct",), ("smollm2-135m-instruct", "other")])
def test_the_table_at_the_end_has_whole_names_in_a_narrow_terminal(
    models: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from affectlens.cli.sweep_display import print_sweeps

    monkeypatch.setenv("COLUMNS", "80")
    site = "blocks.14.hook_resid_post"
    row = {"target": "emotion", "probe": "logistic", "score": "accuracy", "low": 0.9, "high": 1.0}
    row |= {"rows_held_out": 1234, "groups_held_out": 56, "held_out": "test split"}
    best = [
        {**row, "model": model, "corpus": corpus, "site": site, "value": 0.95}
        for model in models
        for corpus in ("replies", "tones")
    ]
    found: Any = SimpleNamespace(best_rows=lambda: best)
    print_sweeps(found, SimpleNamespace(out=Path("out")), as_json=False)  # type: ignore[arg-type]
    told = capsys.readouterr().out
    lines = [line for line in told.splitlines() if site in line]
    assert len(lines) == len(best) and all(
        "0.950" in line and "0.900–1.000" in line for line in lines
    )
    assert all(name in told for name in (*models, "emotion", "logistic", "accuracy"))
    assert "…" not in told
