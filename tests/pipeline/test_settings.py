"""Keys: every setting of every stage, everything read, and nothing else."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from affectlens.core.artefact import canonical_json
from affectlens.evaluation import strength_search
from affectlens.pipeline import RunConfig, expression, stages
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.engine import Runner, Stage
from affectlens.pipeline.fingerprints import SOURCES
from affectlens.pipeline.line import STAGES
from affectlens.pipeline.run import depends
from affectlens.pipeline.settings import Settings
from affectlens.pipeline.stage import Row, StageRun

NAMES = list(STAGES)


def following(name: str) -> set[str]:
    """A stage and all that use what it makes, however indirectly."""
    found = {name}
    for row in STAGES.values():  # inputs before users
        if found & set(row.needs):
            found.add(row.name)
    return found


def other(value: Any) -> Any:
    """A value of the same kind that is not this one, for any kind of setting there is."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2 if value else 0.5
        case None:
            return 3
        case str():
            return f"{value}x"
        case ():
            return ("x",)
        case tuple():
            return value[:-1]
        case _:
            raise AssertionError(f"a setting of an unknown kind: {value!r}")


def variants(settings: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The settings with one field changed, for every field, those of nested ones included."""
    for field in fields(settings):
        value, name = getattr(settings, field.name), f"{path}{field.name}"
        inner = variants(value, f"{name}.") if is_dataclass(value) else [(name, other(value))]
        for where, changed in inner:
            yield where, replace(settings, **{field.name: changed})


CHANGES = [
    (name, where, changed)
    for name in NAMES
    for where, changed in variants(getattr(Settings(), name))
]


class Line:
    """The real keys and the real runner; only the work is replaced, by a note of its own key."""

    def __init__(self, folder: Path) -> None:
        self.context = RunContext(RunConfig(out=folder, device="cpu", dtype="float32"))
        self.sources = {name: f"{name} of the first run" for name in SOURCES}
        self.settings = {name: getattr(Settings(), name) for name in NAMES}

    def run(self) -> set[str]:
        """Run all stages and say which were done."""
        done: set[str] = set()
        self.context._sources.clear()
        self.context._sources.update(self.sources)
        runner = Runner(
            self.context.folder,
            [self._stage(row) for row in STAGES.values()],
            self.context.digests,
            on_stage=lambda stage, what, _s: done.add(stage.name) if what == "done" else None,
        )
        runner.run()
        return done

    def _stage(self, row: Row) -> Stage:
        stage = StageRun(self.context, row, self.settings[row.name])

        def work() -> list[str]:
            inputs = [self.context.folder / f"{need}.txt" for need in row.needs]
            text = canonical_json([depends(stage), [file.read_text() for file in inputs]])
            (self.context.folder / f"{row.name}.txt").write_text(text)
            return [f"{row.name}.txt"]

        return Stage(row.name, row.needs, lambda: depends(stage), work, row.title)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    made = Line(tmp_path)
    assert made.run() == set(NAMES)
    assert made.run() == set()
    return made


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_redoes_its_stage_and_what_follows_and_no_other(
    line: Line, name: str
) -> None:
    tried = [(where, changed) for stage, where, changed in CHANGES if stage == name]
    assert tried
    for where, changed in tried:
        line.settings[name] = changed
        assert line.run() == following(name), where


@pytest.mark.parametrize("source", SOURCES)
def test_everything_read_redoes_who_reads_it_and_what_follows(line: Line, source: str) -> None:
    readers = [row.name for row in STAGES.values() if source in row.reads]
    assert readers, f"nobody reads {source}"
    line.sources[source] = "of the second run"
    assert line.run() == set().union(*(following(name) for name in readers))


def test_another_judge_redoes_what_judges_and_no_more(line: Line) -> None:
    line.sources["judge"] = "another judge"
    assert line.run() == {"fit_judge", "tune", "evaluate", "judge", "report"}


@pytest.mark.parametrize("library", ["affectlens", "torch", "transformers", "tokenizers"])
def test_versions_redo_everything(
    line: Line, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectlens.pipeline import fingerprints as sources

    other = {**sources.versions(), library: "99"}
    monkeypatch.setattr(sources, "versions", lambda: other)
    assert line.run() == set(NAMES)


def test_settings_reach_the_stages_whole() -> None:
    """What results depend on, each where it belongs."""
    found: Mapping[str, set[str]] = {
        name: {where for stage, where, _ in CHANGES if stage == name} for name in NAMES
    }
    assert {"n_events", "generation.max_new_tokens"} <= found["express"]
    assert {"position", "expression_sites", "placement.dtype"} <= found["activations"]
    assert {"layers.first", "mix.pools", "refine.steps", "refine.seed"} <= found["directions"]
    assert {"budget.neurons_per_layer", "mix.pools", "refine.steps"} <= found["circuit"]
    assert {"n_events", "max_perplexity_ratio", "strengths"} <= found["tune"]
    assert {"seeds", "mix.pools", "refine.steps", "refine.seed"} <= found["controls"]
    assert {"parts", "groups", "counts", "draws", "shares", "seed"} <= found["evidence"]
    assert {"arms", "scenarios", "n_events", "backend", "seed"} <= found["evaluate"]


def test_what_the_user_asks_for_reaches_the_settings(tmp_path: Path) -> None:
    def changed(**options: Any) -> set[str]:
        plain = Settings.of(RunConfig(out=tmp_path, device="cpu", dtype="float32"))
        told = Settings.of(RunConfig(**{"out": tmp_path, "device": "cpu", **options}))
        return {name for name in NAMES if getattr(plain, name) != getattr(told, name)}

    seeded = {
        "probe", "directions", "circuit", "evidence", "controls", "tune", "evaluate", "judge",
        "report",
    }  # fmt: skip
    assert changed(dtype="float32", seed=1) == seeded
    assert changed(dtype="float32", events=3) == {"tune", "evaluate"}
    assert changed(dtype="float32", max_new_tokens=5) == {"tune", "evaluate", "report"}
    assert changed(dtype="float16") == {
        "express", "activations", "directions", "circuit", "evidence", "controls", "pack", "tune",
        "evaluate",
    }  # fmt: skip
    assert not changed(dtype="fp32", url=None, force=True)


def test_device_and_dtype_are_resolved(tmp_path: Path) -> None:
    import torch

    from affectlens.models.devices import pick_device, pick_dtype

    place = Settings.of(RunConfig(out=tmp_path)).evaluate.placement
    device = pick_device(None)
    assert place.device == str(device)
    assert f"torch.{place.dtype}" == str(pick_dtype(None, device))
    assert getattr(torch, place.dtype).is_floating_point


def constants(source: str) -> list[str]:
    """Names of a module that hold a number or a collection, and numbers given by name in calls."""
    tree = ast.parse(source)
    found: list[str] = []
    for node in tree.body:
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        if value and any(_is_number(n) or isinstance(n, _HOLDS) for n in ast.walk(value)):
            found.append(ast.unparse(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and _is_number(node.value):
            found.append(ast.unparse(node))
        if isinstance(node, ast.arguments):
            defaults = [*node.defaults, *filter(None, node.kw_defaults)]
            found += [ast.unparse(d) for d in defaults if _is_number(d)]
    return found


_HOLDS = (ast.Tuple, ast.List, ast.Dict, ast.Set)


def _is_number(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, (int, float))
        and not isinstance(node.value, bool)
    )


def modules() -> list[Path]:
    folder = Path(inspect.getfile(stages)).parent
    beside = [Path(inspect.getfile(expression)).parent / f"{n}.py" for n in _BESIDE]
    beside.append(Path(inspect.getfile(strength_search)))
    return [*sorted(folder.glob("*.py")), *beside]


_BESIDE = ("expression", "arm_files", "corpus_files", "report_examples")
"""Where stages have some of their work done."""


@pytest.mark.parametrize("file", modules(), ids=lambda file: file.stem)
def test_stages_know_no_constants_of_their_own(file: Path) -> None:
    assert constants(file.read_text(encoding="utf-8")) == []


def test_the_check_sees_constants() -> None:
    source = "A = 3\nB = (0.1, 'x')\nC = 'name'\ndef f(n=4, m=None): g(k=5, flag=True)\n"
    assert constants(source) == ["A = 3", "B = (0.1, 'x')", "4", "k=5"]


def test_a_stage_cannot_read_what_it_does_not_declare(tmp_path: Path) -> None:
    run = RunContext(RunConfig(out=tmp_path))
    probe, tune = run.stage("probe"), run.stage("tune")
    for read in (lambda: probe.model, lambda: probe.judge, lambda: probe.corpus("tones")):
        with pytest.raises(LookupError, match="does not say"):
            read()
    with pytest.raises(LookupError, match="does not need circuit"):
        probe.input("circuit", "circuit.safetensors")
    with pytest.raises(LookupError, match="does not say"):
        tune.corpus("replies")
    assert tune.input("pack", "x") == tmp_path / "x"
