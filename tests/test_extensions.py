"""One row adds a thing of each kind, and the command line shows it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.cli.commands.lists import TABLES
from affectlens.core.registry import Registry


def table(kind: str) -> Registry[Any]:
    module, _, name = TABLES[kind].partition(":")
    return getattr(import_module(module), name)


def listed(*kind: str) -> str:
    done = CliRunner().invoke(app, ["list", *kind], env={"COLUMNS": "250"})
    assert done.exit_code == 0, done.output
    return done.output


def a_stage() -> Any:
    from affectlens.pipeline.stage import Row

    def work(run: Any) -> list[str]:
        (run.folder / "toy.txt").write_text("toy")
        return ["toy.txt"]

    return Row("toy", "A toy of a stage", "toy", needs=(), reads=(), work=work)


def a_figure() -> Any:
    import plotly.graph_objects as go

    from affectlens.plotting import Figure

    def draw(artefact: str) -> go.Figure:
        return go.Figure(go.Bar(y=[len(artefact)]))

    return Figure("toy", "A toy of a figure", lambda found: isinstance(found, str), draw)


def a_section() -> Any:
    from affectlens.reports import Section

    return Section("toy", "Toy", "A toy of a section", lambda _data: "<p>a toy</p>")


def an_engine() -> Any:
    from dataclasses import replace

    from affectlens.activations.forward.engines import EngineRow
    from affectlens.activations.forward.engines.transformers import TransformersEngine

    class Toy(TransformersEngine):
        capabilities = replace(
            TransformersEngine.capabilities, name="toy", help="A toy of an engine"
        )

    return EngineRow(Toy)


def an_export() -> Any:
    from affectlens.activations.store.export import ExportFormat

    def write(store: Any, path: Any, site: Any, position: str) -> None:
        path.write_text(" ".join(store.column("id", position)))

    return ExportFormat("toy", "A toy of an export", write)


def a_corpus() -> Any:
    from affectlens.datasets import Corpus, CorpusInfo

    def load() -> Corpus:
        return Corpus("toy", "texts", ())

    return CorpusInfo("toy", "texts", 0, "CC0-1.0", "nowhere", "A toy of a corpus", "no one", load)


def an_estimator() -> Any:
    from affectlens.geometry import ESTIMATORS
    from affectlens.geometry.estimators import Estimator

    work = ESTIMATORS["group_centred"].estimate
    return Estimator("toy", "A toy of an estimator", work, grouped=True, neutral=False)


def an_intervention() -> Any:
    from affectlens.circuits.interventions import Kind

    return Kind("toy", "A toy of an intervention", lambda: lambda value: -value)


def a_task() -> Any:
    from affectlens.circuits.tasks import CarryOver, TaskKind

    return TaskKind("toy", "A toy of a task", "replies", CarryOver.of)


def an_operator() -> Any:
    from affectlens.steering.operators import Operator

    return Operator("toy", "A toy of an operator", adds=True)


def an_arm() -> Any:
    from affectlens.evaluation import ArmKind

    return ArmKind("toy", "toy", "A toy of an arm", "circuit")


def a_judge() -> Any:
    from affectlens.evaluation.judges import LexiconJudge
    from affectlens.evaluation.judges.registry import JudgeInfo

    return JudgeInfo("toy", "A toy of a judge", LexiconJudge, lambda: "toy")


def a_reproduction() -> Any:
    from affectlens.reproductions import Reproduction

    return Reproduction(
        "toy", "A toy of a reproduction", "no one", (), (), dict, lambda _r: "", tuple, ()
    )


TOYS = {
    "reproductions": a_reproduction,
    "engines": an_engine,
    "exports": an_export,
    "corpora": a_corpus,
    "estimators": an_estimator,
    "interventions": an_intervention,
    "tasks": a_task,
    "operators": an_operator,
    "arms": an_arm,
    "judges": a_judge,
    "stages": a_stage,
    "figures": a_figure,
    "sections": a_section,
}


@pytest.fixture(params=list(TABLES))
def added(request: pytest.FixtureRequest) -> Iterator[str]:
    """A kind whose table holds a toy."""
    with table(request.param).adding(TOYS[request.param]()):
        yield request.param


def test_a_toy_of_each_kind_is_listed(added: str) -> None:
    assert "A toy of a" in listed(added) and "A toy of a" in listed()


def test_the_list_holds_every_row_of_every_table() -> None:
    text = listed()
    for kind in TABLES:
        for entry in table(kind).values():
            assert f" {entry.name} " in text and entry.help in text


def test_an_unknown_kind_is_refused_in_one_sentence() -> None:
    done = CliRunner().invoke(app, ["list", "figurs"])
    assert done.exit_code == 1 and done.output.count("Error: ") == 1
    assert "figurs" in done.output and "figures" in done.output


def test_a_toy_figure_is_drawn() -> None:
    from affectlens.plotting import FIGURES, plot

    with FIGURES.adding(a_figure()):
        assert plot("abc").data[0].y == (3,)


def test_a_toy_section_stands_on_the_page() -> None:
    from affectlens.reports import SECTIONS, Header, ReportData, render

    with SECTIONS.adding(a_section()):
        page = render(ReportData(Header("m")))
    assert '<section id="toy"><h2>Toy</h2><p>A toy of a section.</p><p>a toy</p>' in page


def test_a_toy_stage_is_run(tmp_path: Any) -> None:
    from affectlens.pipeline import RunConfig, run
    from affectlens.pipeline.line import STAGES

    with STAGES.adding(a_stage()):
        run(RunConfig(out=tmp_path, device="cpu", dtype="float32"), until="toy")
    assert (tmp_path / "toy.txt").read_text() == "toy"
