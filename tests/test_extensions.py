"""One row adds a thing of each kind, and the command line shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
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


def a_strategy() -> Any:
    from affectlens.circuits.ranking import Strategy

    return Strategy("toy", "A toy of a strategy", lambda search: search.circuit)


def a_part_of_the_evidence() -> Any:
    from affectlens.circuits.evidence.parts import PARTS, Part

    return Part("toy", "A toy of a part", PARTS["ablation"].kind, PARTS["ablation"].run)


def an_operator() -> Any:
    from affectlens.steering.operators import Operator

    return Operator("toy", "A toy of an operator", adds=True)


def a_method() -> Any:
    from affectlens.steering.methods import Method, Wording

    ask = (Wording("toy", "Be full of {emotion}."),)
    return Method("toy", "A toy of a method", "ask", "", "no one", "none", "never", wordings=ask)


def a_policy() -> Any:
    from affectlens.steering.policies import PolicyKind
    from affectlens.steering.policies.mirror import Mirror

    return PolicyKind("toy", "A toy of a policy", "s = p", "no one", Mirror)


def an_objective() -> Any:
    """As little as possible."""
    from affectlens.steering.refine.objectives import Objective

    def loss(_model: Any, _groups: Any, additions: Any, _settings: Any, _rng: Any) -> Any:
        return sum(vectors.square().sum() for vectors in additions.values())

    return Objective("toy", "A toy of an objective", loss)


def a_probe() -> Any:
    """The class whose mean is nearest."""
    import torch

    from affectlens.geometry import LinearFit
    from affectlens.probes import ProbeKind

    def fit(x: Any, y: Any, penalties: Any, *, n_classes: int, weight: Any, tol: float) -> Any:
        share = weight[:, None] * torch.nn.functional.one_hot(y, n_classes).T
        means = torch.einsum("rkn,snd->srkd", share / share.sum(-1, keepdim=True), x)
        means = means[:, :, None].expand(-1, -1, torch.as_tensor(penalties).shape[-1], -1, -1)
        bias = -means.square().sum(-1) / 2
        return LinearFit(means, bias, torch.ones(means.shape[:3], dtype=torch.bool))

    return ProbeKind("toy", "A toy of a probe", fit)


def a_calibration() -> Any:
    from affectlens.probes.calibration import CALIBRATIONS, CalibrationKind

    plain = CALIBRATIONS["none"]
    return CalibrationKind("toy", "A toy of a calibration", plain.fit, plain.restore)


def a_control() -> Any:
    from affectlens.sweeps import Control

    def rows(setting: Any) -> list[Any]:
        return [setting.row("toy", "rows", len(setting.records))]

    return Control("toy", "A toy of a control", "It is no toy.", rows)


def a_format() -> Any:
    import json

    import torch

    from affectlens.core import Provenance
    from affectlens.core.artefact import TensorFile
    from affectlens.steering.formats import PackFormat
    from affectlens.steering.pack_file import facts_of, fields_of, tensors_of

    def write(pack: Any, path: Any) -> None:
        numbers = {name: tensor.tolist() for name, tensor in tensors_of(pack).items()}
        path.write_text(json.dumps([numbers, facts_of(pack)]))

    def read(path: Any) -> Any:
        numbers, facts = json.loads(path.read_text())
        tensors = {name: torch.tensor(rows) for name, rows in numbers.items()}
        return fields_of(TensorFile(tensors, Provenance("pack"), facts, ""))

    return PackFormat("toy", "A toy of a pack format", ".toy", write, read)


def a_vector_format() -> Any:
    from affectlens.steering.formats.vectors import VECTOR_FORMATS

    plain = VECTOR_FORMATS["safetensors"]
    return replace(plain, name="toy", help="A toy of a vector format", ending=".toy")


def a_dictionary() -> Any:
    import json

    import torch

    from affectlens.steering.formats.dictionaries import DictionaryFormat, Feature

    def read(path: Path, index: int) -> Feature:
        return Feature(torch.tensor(json.loads(path.read_text())[index]), 1)

    return DictionaryFormat("toy", "A toy of a dictionary", read)


def a_pack_source() -> Any:
    from affectlens.steering.packs import PackSource

    def locate(address: str) -> Any:
        return Path(address) / "pack.safetensors"

    return PackSource("toy", "A toy of a source of packs", locate, lambda address: ())


def a_server() -> Any:
    from affectlens.serving.contract import Launch, ServerKind

    def prepare(packs: Any, model: Any = None, *, extra: Any, **_: Any) -> Launch:
        return Launch(("toy-server", *packs, *extra), {"TOY": "1"}, shown=("TOY",))

    return ServerKind("toy", "A toy of a server", prepare)


def a_backend() -> Any:
    from contextlib import nullcontext

    from affectlens.evaluation import BackendKind

    class Echo:
        def generate(self, prompts: Any, specs: Any, pack: Any, settings: Any, advance: Any) -> Any:
            advance(len(prompts))
            return [prompt[-settings.max_new_tokens :] for prompt in prompts]

    return BackendKind(
        "toy", "A toy of a back end", lambda _: nullcontext(Echo()), has_address=False
    )


def an_arm() -> Any:
    from affectlens.evaluation import ArmKind, FoldedPack
    from affectlens.steering import SteeringPack

    def fold(found: Any) -> SteeringPack:
        return SteeringPack.from_circuit(found.circuit(refined=False), found.model)

    pack = FoldedPack("pack_toy", fold)
    return ArmKind("toy", "toy", "A toy of an arm", "circuit", pack, strengths=(0.5, 1.0))


def a_judge() -> Any:
    from affectlens.evaluation.judges import LexiconJudge
    from affectlens.evaluation.judges.registry import JudgeInfo

    return JudgeInfo("toy", "A toy of a judge", LexiconJudge, lambda: "toy")


def a_suite() -> Any:
    from affectlens.evaluation.suites import Suite

    return Suite("toy", "A toy of a suite", lambda _item, reply: "toy" in reply)


def a_reproduction() -> Any:
    from affectlens.reproductions import Reproduction

    return Reproduction(
        "toy", "A toy of a reproduction", "no one", (), (), dict, lambda _r: "", tuple, ()
    )


def a_quantiser() -> Any:
    from affectlens.models.quantisers import Quantiser

    return Quantiser("toy", "A toy of a quantiser", "torch", dict)


def a_style() -> Any:
    from affectlens.pipeline.styles import Style

    return Style("toy", "A toy of a style", list, lambda refine: refine)


def a_size() -> Any:
    from affectlens.pipeline.sizes import RunSize

    return RunSize("toy", "A toy of a size", lambda settings: settings)


def a_label_set() -> Any:
    from affectlens.core.emotions import LabelSet

    return LabelSet("toy", "A toy of a label set", ("joy", "woe"), "no one")


def a_label_mapping() -> Any:
    from affectlens.core.emotions import LabelMapping

    return LabelMapping("plutchik", "goemotions", {"joy": "joy"}, "A toy of a mapping")


TOYS = {
    "label_sets": a_label_set,
    "label_mappings": a_label_mapping,
    "sizes": a_size,
    "styles": a_style,
    "reproductions": a_reproduction,
    "quantisers": a_quantiser,
    "engines": an_engine,
    "exports": an_export,
    "corpora": a_corpus,
    "estimators": an_estimator,
    "interventions": an_intervention,
    "tasks": a_task,
    "strategies": a_strategy,
    "evidence": a_part_of_the_evidence,
    "operators": an_operator,
    "objectives": an_objective,
    "methods": a_method,
    "policies": a_policy,
    "probes": a_probe,
    "calibrations": a_calibration,
    "controls": a_control,
    "formats": a_format,
    "vector_formats": a_vector_format,
    "dictionaries": a_dictionary,
    "pack_sources": a_pack_source,
    "servers": a_server,
    "backends": a_backend,
    "arms": an_arm,
    "judges": a_judge,
    "suites": a_suite,
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


def test_a_toy_probe_is_swept() -> None:
    from sklearn.neighbors import NearestCentroid

    from affectlens.probes import PROBES, sweep
    from tests.geometry.synthetic import SITES, planted

    store = planted(n_scenarios=8, content=0.2, noise=0.2)[0]
    with PROBES.adding(a_probe()):
        found = sweep(store, probe="toy", draws=10)
    fit, test = store.select(split="fit"), store.select(split="test")
    theirs = NearestCentroid().fit(fit.to_numpy(SITES[0]), fit.column("emotion"))
    right = theirs.score(test.to_numpy(SITES[0]), test.column("emotion"))
    assert float(found.accuracy[0]) == pytest.approx(right)
    assert found.provenance.parameters["probe"] == "toy"


def test_a_toy_format_is_told_by_its_ending(tiny_model: Any, tmp_path: Any) -> None:
    from affectlens.core import ArtefactError
    from affectlens.steering import SteeringPack
    from affectlens.steering.formats import FORMATS
    from tests.steering.oracle import random_pack

    pack, path = random_pack(tiny_model("llama")), tmp_path / "pack.toy"
    with FORMATS.adding(a_format()):
        pack.save(path)
        again = SteeringPack.load(path)
        for name, vectors in pack.vectors.items():
            assert again.vectors[name].equal(vectors)
        assert again.recommended == pack.recommended and again.layers == pack.layers
        path.write_text("[]")
        with pytest.raises(ArtefactError, match="damaged"):
            SteeringPack.load(path)
    pack.save(path)  # any other ending is our own format
    assert SteeringPack.load(path).fingerprint == pack.fingerprint


def test_a_toy_vector_format_is_exported(tiny_model: Any, tmp_path: Any) -> None:
    from affectlens.steering.exporting import export_vectors
    from affectlens.steering.formats.vectors import VECTOR_FORMATS
    from affectlens.steering.importing import import_vectors
    from tests.steering.oracle import random_pack

    model = tiny_model("llama")
    with VECTOR_FORMATS.adding(a_vector_format()):
        export_vectors(random_pack(model), "anger=1", tmp_path / "v.toy", "toy")
        found = import_vectors({"anger": tmp_path / "v.toy"}, model, "toy").pack
    assert found.layers == {"residual.resid_post": (0, 2)}


def test_a_feature_of_a_toy_dictionary_is_imported(tiny_model: Any, tmp_path: Any) -> None:
    import json

    from affectlens.steering.features import import_features
    from affectlens.steering.formats.dictionaries import DICTIONARIES

    model, path = tiny_model("llama"), tmp_path / "toy.json"
    path.write_text(json.dumps([[1.0] * model.d_model, [2.0] * model.d_model]))
    with DICTIONARIES.adding(a_dictionary()):
        pack = import_features({"anger": (path, 1)}, model, "toy").pack
    assert pack.layers == {"residual.resid_post": (1,)}
    assert pack.vectors["residual.resid_post"].unique().tolist() == [2.0]


def test_a_toy_source_of_packs_is_loaded(tiny_model: Any, tmp_path: Any) -> None:
    from affectlens.steering import SteeringPack
    from affectlens.steering.packs import PACK_SOURCES
    from tests.steering.oracle import random_pack

    pack = random_pack(tiny_model("llama"))
    pack.save(tmp_path / "pack.safetensors")
    with PACK_SOURCES.adding(a_pack_source()):
        assert SteeringPack.load(f"toy:{tmp_path}").fingerprint == pack.fingerprint


def test_a_toy_server_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from affectlens.serving.servers import SERVERS

    became: list[Any] = []
    monkeypatch.setattr(os, "execvpe", lambda *given: became.append(given))
    with SERVERS.adding(a_server()):
        done = CliRunner().invoke(app, ["serve", "--backend", "toy", "--pack", "p", "--port", "81"])
    command = ("toy-server", "p", "--host", "127.0.0.1", "--port", "81")
    assert became == [("toy-server", command, {"TOY": "1"})]
    assert "TOY=1 toy-server p --host" in done.output
    assert CliRunner().invoke(app, ["serve", "--backend", "toy"]).exit_code == 1


def test_a_toy_backend_answers(tiny_model: Any) -> None:
    from affectlens.datasets import load
    from affectlens.evaluation import BACKENDS, arm_requests, generate_replies
    from affectlens.models.generation.generation import GenerationSettings, encode_prompt
    from affectlens.pipeline import RunConfig

    model = tiny_model("llama", max_position_embeddings=2048)
    asked = arm_requests("unsteered", list(load("events"))[:2])
    with BACKENDS.adding(a_backend()):
        assert RunConfig(backend="toy").backend == "toy"
        with BACKENDS["toy"].open(None) as backend:
            settings = GenerationSettings(max_new_tokens=3)
            replies = generate_replies(model, "unsteered", asked, settings, backend=backend)
    for request, reply in zip(asked, replies, strict=True):
        echo = encode_prompt(model, request.event.text)[-3:]
        assert reply.text == model.tokenizer.decode(echo, skip_special_tokens=True).strip()


def test_a_toy_arm_is_packed_tuned_and_compared() -> None:
    from affectlens.evaluation import ARMS, arm_requests
    from affectlens.pipeline.settings import Settings

    before = Settings()
    with ARMS.adding(an_arm()):
        settings = Settings()
        (request,) = arm_requests("toy", [None], ["anger"])  # type: ignore[list-item]
    assert settings.pack.packs == (*before.pack.packs, "pack_toy")
    assert settings.tune.strengths == (*before.tune.strengths, ("toy", (0.5, 1.0)))
    assert settings.evaluate.arms == settings.report.arms == (*before.evaluate.arms, "toy")
    assert str(request.spec) == "anger=1;mode=circuit" and request.system is None
