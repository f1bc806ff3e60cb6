"""The stage that keeps activations: what it runs again, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from affectlens.activations import ActivationStore
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.corpus_files import save_corpus
from affectlens.pipeline.line import STAGES
from affectlens.pipeline.run_config import RunConfig
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.activations import activations
from tests.activations import plain


@pytest.fixture(autouse=True)
def _small_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("affectlens.datasets.load", lambda _name: plain.replies())


def context(folder: Path, model: Any, **options: Any) -> StageRun:
    run = RunContext(RunConfig(out=folder, **options))
    run.__dict__["model"] = model  # loaded already
    save_corpus(plain.many(20), folder / "expression.jsonl")
    return run.stage("activations")


@contextmanager
def passes(model: Any) -> Generator[list[int]]:
    """Rows of every forward pass in the block."""
    rows: list[int] = []
    handle = model.anatomy.base.register_forward_pre_hook(
        lambda _module, _args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    yield rows
    handle.remove()


def stamps(folder: Path, files: Any) -> dict[str, int]:
    return {file: (folder / file).stat().st_mtime_ns for file in files}


def test_a_finished_store_is_kept_and_an_unfinished_one_gone_on_with(
    tiny_model: Any, tmp_path: Path
) -> None:
    model = tiny_model("llama")
    run = context(tmp_path, model)
    files = activations(run)
    assert {Path(file).parts[1] for file in files} == {"replies", "expression"}
    assert not [file for file in files if file.endswith((".lock", ".tmp"))]
    before = stamps(tmp_path, files)
    with passes(model) as rows:
        assert activations(run) == files
    assert not rows and stamps(tmp_path, files) == before
    # A damaged shard is made again, and nothing else.
    shard = next(file for file in files if "expression/shards" in file)
    whole = (tmp_path / shard).read_bytes()
    (tmp_path / shard).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with passes(model) as rows:
        activations(run)
    assert sum(rows) == 20 and (tmp_path / shard).read_bytes() == whole
    # Told to do everything again, it does.
    with passes(model) as rows:
        activations(context(tmp_path, model, force=True))
    assert sum(rows) == 25


def test_a_store_of_another_model_is_replaced(tiny_model: Any, tmp_path: Path) -> None:
    for model in (tiny_model("llama"), tiny_model("gpt_neox")):
        activations(context(tmp_path, model))
        for name in ("replies", "expression"):
            store = ActivationStore.open(tmp_path / "activations" / name)
            assert store.provenance.model == model.fingerprint
    # Blocks in parallel have no residual between attention and MLP.
    assert {site.kind for site in store.sites} == {"resid_post"}


def test_probes_and_directions_read_its_stores() -> None:
    assert STAGES["activations"].needs == ("express",)
    assert STAGES["probe"].needs == ("activations",)
    assert STAGES["directions"].needs == ("express", "activations")
