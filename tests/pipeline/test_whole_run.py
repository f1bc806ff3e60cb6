"""The whole run, from text to report, on a tiny model: stopped, gone on with, damaged, edited."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from affectlens.core import EMOTIONS, ArtefactError
from affectlens.pipeline.engine import Stage
from affectlens.pipeline.line import STAGES
from tests.pipeline.test_settings import following
from tests.tiny_run import done, options, run_small, save_encoder, save_judge, save_model

NAMES = list(STAGES)
ALL = dict.fromkeys(NAMES, "skipped")


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, and the tiny judge and encoder in the place of the real ones."""
    from affectlens.evaluation.judges import encoder
    from affectlens.models.registry import list_models

    folder = tmp_path_factory.mktemp("parts")
    save_model(folder)
    patch.setenv("AFFECTLENS_CACHE", str(folder / "cache"))
    place = next(info.path for info in list_models() if info.name == "minilm")
    save_encoder(place)
    save_judge(folder / "judge.safetensors", place)
    use_judge(patch, folder / "judge.safetensors")
    yield folder
    patch.undo()
    encoder.shipped_adapter.cache_clear()


def use_judge(patch: pytest.MonkeyPatch, file: Path) -> None:
    from affectlens.evaluation.judges import encoder

    patch.setattr(encoder, "ADAPTER_FILE", str(file))
    encoder.shipped_adapter.cache_clear()


READ: dict[str, str] = {"events": "events"} | dict.fromkeys(
    ("replies", "implicit", "tones"), "corpora"
)
"""Corpus → what a stage that loads it must declare."""


@pytest.fixture(scope="module")
def reads() -> dict[str, set[str]]:
    """What each stage of `finished` read, by the names of sources."""
    return {name: set() for name in NAMES}


class Watch:
    """Notes what is read while a stage works, however deep in the library."""

    def __init__(self, reads: dict[str, set[str]], patch: pytest.MonkeyPatch) -> None:
        from affectlens.datasets import authored, load
        from affectlens.evaluation.judges import lexicon

        self.reads, self.stage = reads, ""

        def loaded(name: str, **options: Any) -> Any:
            self.note(READ[name])
            return load(name, **options)

        def noting(source: str, function: Any) -> Any:
            def call(*args: Any, **options: Any) -> Any:
                self.note(source)
                return function(*args, **options)

            return call

        for module in ("datasets", "pipeline.expression"):
            patch.setattr(f"affectlens.{module}.load", loaded)
        patch.setattr("affectlens.datasets.authored.openers", noting("openers", authored.openers))
        asked = noting("prompts", authored.elicitation_prompt)
        patch.setattr("affectlens.evaluation.arms.prompted.elicitation_prompt", asked)
        words = noting("lexicon", lexicon.default_lexicon)
        for module in ("naming", "judges.lexicon"):
            patch.setattr(f"affectlens.evaluation.{module}.default_lexicon", words)
        real = "affectlens.models.load_model", "affectlens.evaluation.topic.load_encoder"
        for where, source in zip(real, ("model", "encoder"), strict=True):
            module, _, name = where.rpartition(".")
            patch.setattr(where, noting(source, getattr(importlib.import_module(module), name)))

    def note(self, source: str) -> None:
        if self.stage:
            self.reads[self.stage].add(source)

    def __call__(self, stage: Stage, what: str, _seconds: float) -> None:
        self.stage = stage.name if what == "started" else ""


def test_stages_read_what_they_declare(finished: Path, reads: dict[str, set[str]]) -> None:
    declared = {row.name: set(row.reads) for row in STAGES.values()}
    assert {name: found - declared[name] for name, found in reads.items() if found} == {
        name: set() for name, found in reads.items() if found
    }
    assert reads["circuit"] >= {"events"} and reads["express"] >= {"openers", "events", "corpora"}
    assert reads["evaluate"] >= {"prompts"} and reads["report"] >= {"lexicon"}


@pytest.fixture(scope="module")
def finished(parts: Path, reads: dict[str, set[str]]) -> Path:
    """A run that was stopped when it was about to tune, and gone on with."""
    from affectlens.pipeline import RunConfig, run
    from affectlens.pipeline.settings import Settings
    from tests.tiny_run import small

    config = RunConfig.checked(**options(parts))

    def stop(stage: Stage, what: str, _seconds: float) -> None:
        if (stage.name, what) == ("tune", "started"):
            raise KeyboardInterrupt

    settings, said = small(Settings.of(config)), dict[str, str]()
    with pytest.MonkeyPatch.context() as patch:
        watch = Watch(reads, patch)

        def watched(stage: Stage, what: str, seconds: float) -> None:
            watch(stage, what, seconds)
            said[stage.name] = what
            if not stopped:
                stop(stage, what, seconds)

        stopped = False
        with pytest.raises(KeyboardInterrupt):
            run(config, settings=settings, on_stage=watched)
        stopped, watch.stage = True, ""
        said.clear()
        run(config, settings=settings, on_stage=watched)
    before = NAMES[: NAMES.index("tune")]
    assert list(said) == NAMES
    assert {name for name, what in said.items() if what == "skipped"} == set(before)
    return parts


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of everything, to be spoilt; no date in it is that of the original."""
    subprocess.run(["cp", "-r", f"{finished}/run", f"{finished}/model", tmp_path], check=True)
    return tmp_path


def test_a_second_run_does_nothing_and_loads_no_model(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any, **_options: Any) -> Any:
        raise AssertionError("nothing needs to be loaded")

    monkeypatch.setattr("affectlens.models.load_model", refuse)
    monkeypatch.setattr("affectlens.evaluation.judges.load_judge", refuse)
    monkeypatch.setattr("affectlens.evaluation.topic.Embedder", refuse)
    stamps = {f: f.stat().st_mtime_ns for f in (finished / "run").rglob("*.safetensors")}
    assert run_small(finished) == ALL
    assert {f: f.stat().st_mtime_ns for f in stamps} == stamps


def test_every_file_has_a_receipt(finished: Path) -> None:
    known: set[str] = set()
    for name in NAMES:
        known |= set(json.loads((finished / "run" / "state" / f"{name}.json").read_text())["files"])
    found = {
        str(file.relative_to(finished / "run"))
        for file in (finished / "run").rglob("*")
        if file.is_file() and file.relative_to(finished / "run").parts[0] != "state"
    }
    assert {file for file in found if not file.endswith(".lock")} == known


def test_a_copied_folder_does_not_start_over(copy: Path) -> None:
    said = run_small(copy, model=str(copy / "model"))
    # What the user calls the model stands in the report, and nowhere else.
    assert done(said) <= {"report"}


def test_what_was_deleted_is_made_again_and_so_is_what_follows(copy: Path, finished: Path) -> None:
    (copy / "run" / "directions.safetensors").unlink()
    said = run_small(finished, out=copy / "run", until="pack")
    assert done(said) == following("directions") & set(said)
    # Those further on wait for their turn.
    for name in following("tune"):
        assert not (copy / "run" / "state" / f"{name}.json").exists()


def test_what_was_damaged_is_made_again_and_so_is_what_follows(copy: Path, finished: Path) -> None:
    file = copy / "run" / "probes.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    said = run_small(finished, out=copy / "run", until="pack")
    assert done(said) == following("probe") & set(said)
    assert file.read_bytes() == (finished / "run" / "probes.safetensors").read_bytes()


def test_a_damaged_shard_of_a_store_is_made_again(copy: Path, finished: Path) -> None:
    shard = next((copy / "run" / "activations" / "replies").rglob("*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = run_small(finished, out=copy / "run", until="probe")
    assert done(said) == {"activations", "probe"}
    assert shard.read_bytes() == whole


def test_another_judge_redoes_what_judges(
    copy: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectlens.models.registry import list_models

    encoder = next(info.path for info in list_models() if info.name == "minilm")
    save_judge(copy / "other.safetensors", encoder, seed=1)
    use_judge(monkeypatch, copy / "other.safetensors")
    try:
        said = run_small(finished, out=copy / "run")
    finally:
        monkeypatch.undo()
        use_judge(monkeypatch, finished / "judge.safetensors")
    assert done(said) == following("fit_judge")
    before, after = (json.loads((f / "run" / "judge.json").read_text()) for f in (finished, copy))
    assert before["judge"] != after["judge"]
    assert before["second"] == after["second"]


@pytest.mark.parametrize("what", ["template", "weights"])
def test_another_model_redoes_what_it_gave(copy: Path, what: str) -> None:
    """The rest follows, see the tests of keys."""
    from safetensors.torch import load_file, save_file

    model = copy / "model"
    assert run_small(copy, until="express") == {"express": "skipped"}
    if what == "template":
        file = model / "chat_template.jinja"
        file.write_text(file.read_text().replace("<|im_start|>", "<|im_end|><|im_start|>"))
    else:
        file = model / "model.safetensors"
        tensors = load_file(file)
        tensors |= {n: -t for n, t in tensors.items() if "down_proj.weight" in n}
        save_file(tensors, file, metadata={"format": "pt"})
    assert run_small(copy, until="express") == {"express": "done"}


def test_the_report_and_its_numbers(finished: Path) -> None:
    from affectlens.evaluation.judges import EncoderJudge
    from affectlens.pipeline.arm_files import file_of, load_replies

    folder = finished / "run"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert "<html" in (folder / "report.html").read_text()
    judge = EncoderJudge.load()
    assert set(metrics["arms"]) >= {"unsteered", "prompted", "residual", "circuit"}
    for arm, found in metrics["arms"].items():
        replies = load_replies(folder / file_of(arm))
        said = judge([reply.text for reply in replies]).chosen
        hits = [
            verdict == target
            for reply, verdict in zip(replies, said, strict=True)
            for target in ([reply.emotion] if reply.emotion else EMOTIONS)
        ]
        assert found["n"] == len(replies) and found["accuracy"] == pytest.approx(np.mean(hits))
    chosen = json.loads((folder / "tuning.json").read_text())["chosen"]
    assert metrics["strengths"] == chosen
    assert set(chosen["circuit"]) == set(EMOTIONS)
    assert set(metrics["seconds"]) == set(NAMES) - {"report"}


def test_what_the_model_expressed(finished: Path) -> None:
    """An opener, and what plain Transformers goes on with."""
    import torch

    from affectlens.datasets.authored import openers
    from affectlens.models import load_model
    from affectlens.models.chat.chats import encode
    from affectlens.pipeline.corpus_files import load_corpus

    corpus = load_corpus(finished / "run" / "expression.jsonl")
    own = [record for record in corpus if record.group.startswith("own:")]
    assert len(own) == 2 * len(EMOTIONS)
    assert len(own) < len(corpus)
    assert all(record.meta["role"] == "direction" for record in corpus)
    model = load_model(str(finished / "model"), device="cpu", dtype="float32")
    tokenizer: Any = model.tokenizer
    for record in own[::5]:
        assert record.reply is not None
        opener = next(o for o in openers()[str(record.emotion)] if record.reply.startswith(o))
        ids = [
            *encode(tokenizer, record.chat[:-1], add_generation_prompt=True).ids,
            *tokenizer(opener, add_special_tokens=False)["input_ids"],
        ]
        with torch.no_grad():
            out = model.hf.generate(  # type: ignore[operator]
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=26,
                do_sample=False,
                repetition_penalty=1.1,
                pad_token_id=0,
            )
        text = opener + tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)
        assert record.reply == text.rstrip()


def test_the_steer_command_on_its_pack(finished: Path) -> None:
    from affectlens.cli import app
    from affectlens.models import load_model
    from affectlens.models.generation.generation import GenerationSettings, encode_prompt
    from affectlens.steering import SteeringPack, SteeringSpec
    from affectlens.steering.hooking.steered_passes import generate_steered

    told = CliRunner().invoke(
        app,
        ["steer", "--run", str(finished / "run"), "-e", "anger=2", "--mode", "residual",
         "--device", "cpu", "--dtype", "float32", "--max-new-tokens", "12", "Hello there."],
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    pack = SteeringPack.load(finished / "run" / "pack.safetensors")
    model = load_model(str(finished / "model"), device="cpu", dtype="float32")
    ids = encode_prompt(model, "Hello there.")
    rows = generate_steered(
        model, pack, [ids, ids], [SteeringSpec(), "anger=2;mode=residual"],
        GenerationSettings(max_new_tokens=12),
    )  # fmt: skip
    plain, steered = (str(model.tokenizer.decode(row, skip_special_tokens=True)) for row in rows)
    shown = "".join(told.output.split())
    for text in (plain, steered):
        assert "".join(text.split())[:20] in shown.replace("│", "")
    missing = CliRunner().invoke(app, ["steer", "--run", "nowhere", "-e", "anger=1", "Hello"])
    assert missing.exit_code == 1


_HOLD = """
import sys, time
from pathlib import Path
from affectlens.pipeline.run import writing_alone
with writing_alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""


def test_a_folder_has_one_writer_and_readers_go_on(copy: Path, finished: Path) -> None:
    import sys

    from affectlens.cli import app
    from affectlens.steering import SteeringPack

    held = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(copy / "run")], stdout=subprocess.PIPE, text=True
    )
    shutil.rmtree(copy / "model")
    try:
        assert held.stdout is not None and held.stdout.readline() == "held\n"
        with pytest.raises(ArtefactError, match=f"process {held.pid} on .* since"):
            run_small(finished, out=copy / "run")
        told = CliRunner().invoke(
            app, ["pack", "--model", f"{finished}/model", "--out", f"{copy}/run", "--seed", "1"]
        )
        assert told.exit_code == 1
        [said] = [line for line in told.stderr.splitlines() if line.startswith("Error: ")]
        assert str(held.pid) in said and str(copy / "run") in said
        SteeringPack.load(copy / "run" / "pack.safetensors")
    finally:
        held.kill()
        held.wait()
    # The dead holder bars nobody, and nothing was written meanwhile.
    assert run_small(finished, out=copy / "run") == ALL
