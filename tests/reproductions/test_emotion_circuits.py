"""The whole study of arXiv 2510.11328 on a tiny model, and what bad input gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from affectlens.circuits import Circuit
from affectlens.cli import app
from affectlens.core import AffectLensError, DataError, UnknownNameError
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.reproductions import REPRODUCTIONS, StudyRequest, reproduce
from affectlens.reproductions.emotion_circuits.settings import PaperSettings
from tests.reproductions.answering import answering
from tests.tiny_run import save_encoder, save_judge, save_model

STUDY = "emotion-circuits"
STEPS = [step.name for step in REPRODUCTIONS[STUDY].steps]
_BRIEF = GenerationSettings(max_new_tokens=5, repetition_penalty=1.0)
SMALL = PaperSettings(
    prompted=_BRIEF,
    steered=replace(_BRIEF, min_new_tokens=2, repetition_penalty=1.05, no_repeat_ngram=3),
    modulated=replace(_BRIEF, min_new_tokens=2, repetition_penalty=1.1, no_repeat_ngram=3),
    influence_prompts=2,
    draws=3,
    bootstrap=20,
    min_groups=2,
)


def scenario(i: int, theme: str = "work") -> dict[str, Any]:
    events = {v: f"It was {v} {i}." for v in ("positive", "neutral", "negative")}
    return {"theme": theme, "scenario": f"I did {i}.", "event": events, "skeleton_id": f"s{i}"}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny model, a tiny judge in the place of the real one, and scenarios."""
    from affectlens.evaluation.judges import encoder
    from affectlens.models.registry import list_models

    folder = tmp_path_factory.mktemp("parts")
    save_model(folder)
    write(folder / "fit.jsonl", [scenario(i) for i in range(2)])
    write(folder / "test.jsonl", [scenario(i) for i in range(5, 8)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFECTLENS_CACHE", str(folder / "cache"))
        place = next(info.path for info in list_models() if info.name == "minilm")
        save_encoder(place)
        save_judge(folder / "judge.safetensors", place)
        patch.setattr(encoder, "ADAPTER_FILE", str(folder / "judge.safetensors"))
        encoder.shipped_adapter.cache_clear()
        yield folder
    encoder.shipped_adapter.cache_clear()


def request(parts: Path, **more: Any) -> StudyRequest:
    given: dict[str, Any] = {
        "model": str(parts / "model"),
        "out": parts / "run",
        "scenarios": parts / "fit.jsonl",
        "test": parts / "test.jsonl",
        "events": 3,
        "accept": "all",
        "device": "cpu",
    }
    return StudyRequest(study=STUDY, **{**given, **more})


def run(parts: Path, **more: Any) -> dict[str, str]:
    said: dict[str, str] = {}
    reproduce(
        request(parts, **more),
        settings=SMALL,
        on_stage=lambda stage, what, _s: said.update({stage.name: what}),
    )
    return said


@pytest.fixture(scope="module")
def done(parts: Path) -> dict[str, Any]:
    """A finished reproduction, as published and without an endpoint."""
    assert run(parts) == dict.fromkeys(STEPS, "done")
    return json.loads((parts / "run" / "figures.json").read_text())


def test_every_figure_of_the_paper_is_measured_or_said_to_be_untested(done: Any) -> None:
    rows = {row["id"]: row for row in done["figures"]}
    untested = {name for name, row in rows.items() if row["here"] == "untested"}
    # Without an endpoint, the judge that is told the target; and counts that no layer has.
    assert untested == {name for name in rows if name.startswith("told.")}
    assert rows["told.steering.overall"]["paper"] == "91.2"
    assert all(what.startswith("as published") for what in done["deviations"].values())
    assert rows["blind.circuit.anger"]["beside"] == "random units of the same layers"
    assert rows["allocation.neurons"]["value"] == round(0.7 * 10 * 2 * 3)


def test_the_comparison_is_written_four_times(done: Any, parts: Path) -> None:
    table = pq.read_table(parts / "run" / "figures.parquet").to_pylist()
    assert [row["id"] for row in table] == [row["id"] for row in done["figures"]]
    for name in ("report.md", "report.html"):
        text = (parts / "run" / name).read_text(encoding="utf-8")
        assert "91.2" in text and "untested" in text and "as published" in text
        assert all(section in text for section in {row["section"] for row in done["figures"]})


def test_what_is_done_is_kept_and_a_correction_redoes_what_it_changes(
    done: Any, parts: Path
) -> None:
    assert run(parts) == dict.fromkeys(STEPS, "skipped")
    said = run(parts, corrections=("one-decoding",))
    redone = {"steering", "modulation", "verdicts", "report"}
    assert {name for name, what in said.items() if what == "done"} == redone
    found = json.loads((parts / "run" / "figures.json").read_text())
    assert found["deviations"]["one-decoding"].startswith("corrected")


def test_corrections_change_the_circuit(done: Any, parts: Path, tmp_path: Path) -> None:
    published = Circuit.load(parts / "run" / "circuit.safetensors")
    corrections = ("raw-head-scores", "valence-key", "raw-last-state")
    reproduce(
        request(parts, out=tmp_path, corrections=corrections), settings=SMALL, until="circuit"
    )
    corrected = Circuit.load(tmp_path / "circuit.safetensors")
    for name in ("head_scores", "neuron_scores", "delta_neurons"):
        assert not getattr(published, name).allclose(getattr(corrected, name))
    assert published.delta_heads.allclose(corrected.delta_heads)


def test_a_judge_by_endpoint_fills_its_rows(parts: Path, tmp_path: Path) -> None:
    with answering(lambda _body: '{"match": 1}') as (url, asked):
        run(parts, out=tmp_path, endpoint=url, endpoint_model="j", accept="judge")
    rows = {
        row["id"]: row for row in json.loads((tmp_path / "figures.json").read_text())["figures"]
    }
    assert rows["told.circuit.overall"]["value"] == 100
    assert rows["groups.accepted"]["value"] == 100
    assert asked[0]["model"] == "j" and asked[0]["messages"][1]["content"].startswith("Emotion: ")


def test_too_few_accepted_groups_end_in_a_sentence(parts: Path, tmp_path: Path) -> None:
    with (
        answering(lambda _body: '{"match": 0}') as (url, _),
        pytest.raises(DataError, match=r"Only 0 of 6 groups .* --accept all"),
    ):
        run(parts, out=tmp_path, endpoint=url, endpoint_model="j", accept="judge")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda row: row["event"].pop("neutral"), "line 2: the event lacks its neutral form"),
        (lambda row: row.pop("theme"), "line 2: no column 'theme'"),
        (lambda row: row.update(event="it"), "line 2: event must map positive, neutral, negative"),
        (lambda row: row.update(skeleton_id="s0"), "'s0' is that of line 1"),
        (lambda row: row.update(scenario=" "), "line 2: scenario must be a text"),
    ],
)
def test_a_bad_scenario_file_is_told_before_anything_is_loaded(
    tmp_path: Path, change: Any, sentence: str
) -> None:
    rows = [scenario(i) for i in range(2)]
    change(rows[1])
    file = write(tmp_path / "s.jsonl", rows)
    with pytest.raises(AffectLensError, match=sentence):
        reproduce(StudyRequest(STUDY, "no-such-model", tmp_path / "out", scenarios=file))
    assert not (tmp_path / "out").exists()


def test_both_files_must_not_share_a_scenario(tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", [scenario(0)])
    with pytest.raises(DataError, match="holds a scenario of"):
        reproduce(
            StudyRequest(STUDY, "m", tmp_path / "out", scenarios=file, test=file), until="scenarios"
        )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"accept": "some"}, "way to accept prompts"),
        ({"groups": 0}, "--groups must be at least 1"),
        ({"endpoint": "http://x"}, "the name of its model"),
        ({"test": Path("t")}, "give the first with --scenarios"),
    ],
)
def test_a_request_that_cannot_be_met(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AffectLensError, match=sentence):
        StudyRequest(STUDY, "m", Path("out"), **options)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (None, "is a base model, without a chat template"),
        ("{{ raise_exception('no system') }}", "has no system role"),
        ("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", "no system"),
    ],
)
def test_models_that_no_system_prompt_can_ask(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch, template: str | None, sentence: str
) -> None:
    from affectlens.reproductions.emotion_circuits.replies import require_system_role

    model = tiny_model("llama")
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    with pytest.raises(DataError, match=sentence):
        require_system_role(model)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="reproduction 'emotions'"):
        reproduce(StudyRequest("emotions", "m", tmp_path))
    with pytest.raises(UnknownNameError, match=r"correction 'one'.*one-decoding"):
        reproduce(StudyRequest(STUDY, "m", tmp_path, corrections=("one",)))


def test_the_command_lists_studies_and_prints_figures(
    done: Any, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = CliRunner().invoke(app, ["reproduce"], env={"COLUMNS": "200"})
    assert listed.exit_code == 0 and "arXiv 2510.11328" in listed.output
    assert "--correct valence-key" in listed.output
    bad = CliRunner().invoke(app, ["reproduce", "emotion"])
    assert bad.exit_code == 1 and "emotion-circuits" in bad.output
    monkeypatch.setattr("affectlens.reproductions.reproduce", lambda request, on_stage: request.out)
    printed = CliRunner().invoke(
        app, ["reproduce", STUDY, "--out", str(parts / "run")], env={"COLUMNS": "200"}
    )
    assert printed.exit_code == 0, printed.output
    assert "91.2" in printed.output and "untested" in printed.output
