"""How much a run does."""

from __future__ import annotations

from pathlib import Path

import pytest

from affectlens.core.errors import UnknownNameError
from affectlens.pipeline import RunConfig, run
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.corpus_choice import CorpusChoice
from affectlens.pipeline.own.choice import OwnCorpus
from affectlens.pipeline.settings import Settings
from affectlens.pipeline.sizes import SIZES, settings_of
from tests.pipeline.own_texts import write_politeness


def of(size: str, tmp_path: Path) -> Settings:
    return settings_of(RunConfig.checked(out=tmp_path, device="cpu", dtype="float32", size=size))


def test_full_is_the_default(tmp_path: Path) -> None:
    config = RunConfig.checked(out=tmp_path, device="cpu", dtype="float32")
    assert next(iter(SIZES)) == config.size == "full"
    assert settings_of(config) == Settings.of(config) == of("full", tmp_path)


def test_small_does_less_of_the_same(tmp_path: Path) -> None:
    """No arm or control goes, the descents stay alike, and every number is kept in the keys."""
    full, small = of("full", tmp_path), of("small", tmp_path)
    assert small.evaluate.arms == full.evaluate.arms and small.pack.packs == full.pack.packs
    assert small.report == full.report and small.probe == full.probe
    assert small.controls.refine == small.circuit.refine != full.circuit.refine
    assert len(small.controls.seeds) == len(full.controls.seeds)
    for stage, events in (("express", 24), ("tune", 6), ("evaluate", 20)):
        assert getattr(small, stage).n_events == events < getattr(full, stage).n_events
    assert small.evidence.parts == () and small.activations.per_split == 12
    assert RunContext(RunConfig.checked(out=tmp_path, size="small")).settings.evidence.parts == ()


def test_a_size_that_does_not_exist(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UnknownNameError, match="size of a run"):
        run(RunConfig.checked(out=out, size="tiny"))
    assert not any(out.glob("*.safetensors"))


def test_all_texts_of_one_s_own_are_read(tmp_path: Path) -> None:
    """Without groups each text is a scenario: a dozen would not do for a probe."""
    file = str(write_politeness(tmp_path / "p.csv"))
    choice = CorpusChoice(file, columns=["text=body", "emotion=politeness"])
    config = RunConfig.checked(out=tmp_path / "run", size="small", own=OwnCorpus(choice))
    found = settings_of(config)
    assert found.fit_judge.labels == ("polite", "rude")
    assert found.activations.per_split is None and found.tune.n_events == 6
