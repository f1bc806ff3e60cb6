"""Captures that stop, go on, or find a store that something else made."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from affectlens.activations import ActivationStore, capture
from affectlens.activations import capture as module_of_capture
from affectlens.core.errors import ArtefactError, DataError, MismatchError
from affectlens.models.loading import LanguageModel, load_model
from tests.activations import plain
from tests.activations.killed import OPTIONS, tree
from tests.conftest import tiny_hf, tiny_tokenizer
from tests.models.test_padding import made

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_store_killed_ten_times_is_the_undisturbed_one(tmp_path: Path) -> None:
    tiny_hf("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    arguments = [str(tmp_path / "model"), str(tmp_path), "10"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.activations.killed", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["killed"] == 10 and told["complete"] >= 1
    assert any(told["found"]), "no kill came after a shard was written"


@contextmanager
def passes(model: LanguageModel) -> Iterator[list[int]]:
    """Rows of every forward pass of a model within the block."""
    rows: list[int] = []

    def count(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        rows.append(len(kwargs["input_ids"]))

    handle = model.anatomy.base.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


class Stop(Exception):
    pass


def stopped_after(model: LanguageModel, n: int, out: Path, **options: Any) -> None:
    """A capture that breaks off in its n-th forward pass."""
    left = [n]

    def stop(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Stop

    handle = model.anatomy.base.register_forward_pre_hook(stop)
    try:
        with pytest.raises(Stop):
            capture(model, plain.many(80), out=out, **{**OPTIONS, **options})
    finally:
        handle.remove()


def test_what_is_done_is_not_run_again(tiny_model: Any, tmp_path: Path) -> None:
    model, corpus = tiny_model("llama"), plain.many(80)
    # The first capture of a model also tries how it takes padding, in passes of its own.
    capture(model, corpus, out=tmp_path / "first", **OPTIONS)
    with passes(model) as rows:
        whole = capture(model, corpus, out=tmp_path / "whole", **OPTIONS)
        n_passes = len(rows)
        rows.clear()
        again = capture(model, corpus, out=tmp_path / "whole", **OPTIONS)
        assert not rows and again.fingerprint == whole.fingerprint
    stopped_after(model, n_passes // 2, tmp_path / "half")
    with pytest.raises(ArtefactError, match=r"not finished"):
        ActivationStore.open(tmp_path / "half")
    with passes(model) as rows:
        capture(model, corpus, out=tmp_path / "half", **OPTIONS)
        assert 0 < len(rows) < n_passes
        assert tree(tmp_path / "half") == tree(tmp_path / "whole")
        # Not told to go on, it starts anew.
        rows.clear()
        capture(model, corpus, out=tmp_path / "half", resume=False, **OPTIONS)
        assert len(rows) == n_passes
        assert tree(tmp_path / "half") == tree(tmp_path / "whole")


def test_batches_stay_as_they_were(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    capture(model, plain.many(80), out=tmp_path / "whole", **OPTIONS)
    stopped_after(model, 5, tmp_path / "half")
    other = {**OPTIONS, "max_tokens_per_batch": 900, "shard_bytes": 1 << 20}
    capture(model, plain.many(80), out=tmp_path / "half", **other)
    assert tree(tmp_path / "half") == tree(tmp_path / "whole")


def test_a_model_that_bears_no_padding_goes_on_as_well(tmp_path: Path) -> None:
    """Its batches hold texts of one length, which the store says too."""
    model = made("phi3")
    whole = capture(model, plain.replies(), out=tmp_path / "acts")
    assert whole.info().layout["mix_lengths"] is False
    with passes(model) as rows:
        again = capture(model, plain.replies(), out=tmp_path / "acts")
    assert not rows and again.fingerprint == whole.fingerprint


def test_two_processes_make_the_same_store(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    for name in ("a", "b"):
        capture(model, plain.many(40), out=tmp_path / name, **OPTIONS)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def _with_template(model: LanguageModel, template: str) -> LanguageModel:
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = template
    return load_model(model.hf, tokenizer=tokenizer)


@pytest.mark.parametrize("finished", [True, False])
def test_a_store_of_something_else_is_refused_and_named(
    finished: bool, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, corpus, out = tiny_model("llama"), plain.many(80), tmp_path / "acts"
    if finished:
        capture(model, corpus, out=out, **OPTIONS)
    else:
        stopped_after(model, 8, out)
    before = tree(out)
    template = str(model.tokenizer.chat_template)
    others: list[tuple[str, LanguageModel, dict[str, Any]]] = [
        ("weights", tiny_model("llama", seed=1), {}),
        ("template", _with_template(model, template.replace("'\n'", "'\n\n'")), {}),
        # The same tokens come out, but the template is another one.
        ("template", _with_template(model, "{# new #}" + template), {}),
        ("sites", model, {"sites": "resid_post"}),
        ("positions", model, {"positions": "mean:reply"}),
        ("dtype", model, {"dtype": "bfloat16"}),
        ("engine", model, {"engine": "transformer_lens"}),
    ]
    for differs, changed, options in others:
        with pytest.raises(MismatchError, match=differs):
            capture(changed, corpus, out=out, **{**OPTIONS, **options})
    with pytest.raises(MismatchError, match="corpus"):
        capture(model, corpus.filter(emotion="anger"), out=out, **OPTIONS)
    assert tree(out) == before
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[module_of_capture.__module__], "CAPTURE_VERSION", 99)
        with pytest.raises(MismatchError, match="code"):
            capture(model, corpus, out=out, **OPTIONS)
    assert tree(out) == before
    other = capture(tiny_model("llama", seed=1), corpus, out=out, force=True, **OPTIONS)
    assert other.provenance.model == tiny_model("llama", seed=1).fingerprint
    other.verify()


def test_a_request_that_fails_at_once_leaves_nothing(tiny_model: Any, tmp_path: Path) -> None:
    """Otherwise the corrected request would be refused."""
    model, out = tiny_model("gpt_neox"), tmp_path / "acts"
    with pytest.raises(Exception, match="resid_mid"):
        capture(model, plain.replies(), sites="resid_mid", out=out)
    assert not out.exists()
    with pytest.raises(DataError, match="has no reply"):
        capture(model, plain.elicited(), positions="mean:reply", out=out)
    assert not out.exists()
    assert len(capture(model, plain.replies(), sites="resid_post", out=out)) == 5
