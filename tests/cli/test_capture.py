"""``affectlens capture`` and ``affectlens store`` on a tiny model: real runs, and every mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from affectlens.activations import ActivationStore
from affectlens.cli import app
from tests.on_disk import actors, contents, save_model, save_texts

N_TEXTS = 24


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, the same family with other weights, texts, and a finished store."""
    folder = tmp_path_factory.mktemp("files")
    save_model(folder / "model")
    save_model(folder / "other", seed=1)
    save_texts(folder / "texts.jsonl", N_TEXTS)
    done = capture(folder, folder / "store")
    assert done.exit_code == 0, done.stderr
    return folder


def affectlens(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def capture(files: Path, out: Path, *more: str | Path, **named: str | Path) -> Result:
    model, corpus = named.get("model", files / "model"), named.get("corpus", files / "texts.jsonl")
    dtype = () if "--model-dtype" in more else ("--model-dtype", "float32")
    return affectlens("capture", model, corpus, "--out", out, *dtype, *more)


def sentence(result: Result) -> str:
    """The only thing said by a command that fails."""
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert not result.stdout
    assert "Traceback" not in result.stderr
    return lines[0]


def test_a_model_can_be_spread(files: Path, tmp_path: Path) -> None:
    result = capture(files, tmp_path / "s", "--device-map", "auto")
    assert result.exit_code == 0, result.stderr
    assert contents(tmp_path / "s") == contents(files / "store")
    told = sentence(capture(files, tmp_path / "t", "--device-map", "cuda:9"))
    assert "Unknown device of the device map 'cuda:9'" in told
    told = sentence(capture(files, tmp_path / "t", "--device-map", "auto", "--ray"))
    assert "Ray gives each actor one device" in told
    told = sentence(capture(files, tmp_path / "t", "--device-map", "auto", "--device", "cpu"))
    assert "not both" in told
    assert not (tmp_path / "t").exists()


def test_a_capture_says_in_one_line_what_it_wrote(files: Path, tmp_path: Path) -> None:
    result = capture(
        files,
        tmp_path / "s",
        *("--sites", "resid_post,mlp_out@1-2", "--positions", "last,mean:text", "--dtype", "int8"),
        *("--split", "fit", "--split", "tune", "-e", "anger", "--max-tokens-per-batch", "200"),
    )
    assert result.exit_code == 0, result.stderr
    store = ActivationStore.open(tmp_path / "s")
    n = len(store.column("id", "last"))
    rows = f"{n} rows at last + {n} rows at mean:text, 5 sites, "
    assert result.stdout.startswith(f"wrote {tmp_path / 's'}: {rows}")
    assert " tokens/s" in result.stdout
    assert len(result.stdout.splitlines()) == 1
    assert set(store.column("emotion", "last")) == {"anger"}
    assert set(store.column("split", "last")) <= {"fit", "tune"}
    assert store.dtype == "int8" and len(store.sites) == 5
    assert store.info().layout["max_tokens_per_batch"] == 200


def test_the_same_command_again_does_nothing(files: Path) -> None:
    before = contents(files / "store")
    result = capture(files, files / "store")
    assert result.exit_code == 0 and "was finished before" in result.stdout
    assert contents(files / "store") == before
    assert "wrote" in capture(files, files / "store", "--no-resume").stdout
    assert contents(files / "store") == before


def test_a_registered_corpus_and_columns_of_a_csv_file(files: Path, tmp_path: Path) -> None:
    named = capture(files, tmp_path / "a", *("--role", "test", "-e", "fear"), corpus="events")
    assert "has no records with" in sentence(named) or "Unknown emotion" in sentence(named)
    few = capture(files, tmp_path / "b", *("--split", "tune", "--overlong", "skip"), corpus="tones")
    assert few.exit_code == 0, few.stderr
    (tmp_path / "own.csv").write_text("body,label\nI am sad.,sadness\nI am happy.,happiness\n")
    own = capture(
        *(files, tmp_path / "c", "--column", "text=body", "--column", "emotion=label"),
        corpus=tmp_path / "own.csv",
    )
    assert own.exit_code == 0, own.stderr
    assert ActivationStore.open(tmp_path / "c").column("emotion") == ["sadness", "happiness"]


def test_store_info_verify_and_export(files: Path, tmp_path: Path) -> None:
    store = ActivationStore.open(files / "store")
    said = affectlens("store", "info", files / "store").stdout
    for fact in ("resid_post@0-2 (32 wide)", f"{N_TEXTS} at mean:text", store.provenance.model):
        assert fact in said
    checked = affectlens("store", "verify", files / "store")
    assert checked.exit_code == 0 and "1 shard and the labels are as they were" in checked.stdout
    site = "blocks.1.hook_resid_post"
    for name, *more in (("a.npy",), ("b.bin", "--format", "npy"), ("c.npy", "-e", "fear")):
        arguments = (files / "store", tmp_path / name, "--site", site, *more)
        result = affectlens("store", "export", *arguments)
        assert result.exit_code == 0, result.stderr
        kept = store.select(emotion="fear") if "-e" in more else store
        np.testing.assert_array_equal(np.load(tmp_path / name), kept.to_numpy(site))
        assert f"{len(kept)} rows × 32" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sites", "resid_pots"), "Unknown site 'resid_pots'; choose one of: resid_post"),
        (("--sites", "resid_post@7"), "Unknown layer"),
        (("--positions", "mean:replay"), "mean:reply"),
        (("--dtype", "float23"), "float32"),
        (("--model-dtype", "float23"), "float32"),
        (("--engine", "transformer"), "transformers"),
        (("--overlong", "cut"), "truncate"),
        (("--device", "cuda:77"), "Unknown device 'cuda:77'; choose one of: "),
        (("--emotion", "anker"), "anger"),
        (("--column", "text"), "field=column"),
        (("--ray", "--ray-address", "127.0.0.1:9"), "No Ray cluster answers at 127.0.0.1:9"),
    ],
)
def test_options_that_do_not_exist(
    files: Path, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    assert says in sentence(capture(files, tmp_path / "s", *arguments))
    assert not (tmp_path / "s").exists()


def test_models_and_corpora_that_do_not_exist(files: Path, tmp_path: Path) -> None:
    assert "replies" in sentence(capture(files, tmp_path / "s", corpus="replis"))
    assert "There is no file" in sentence(capture(files, tmp_path / "s", corpus="gone.csv"))
    assert "smollm2-135m-instruct" in sentence(capture(files, tmp_path / "s", model="smolm2"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"text": "fine"}\n{"text": "caf\xe9"}\n', "line 2: byte 0xe9 is not UTF-8"),
        (b'{"text": "fine"}\n\n{"text": " "}\n', "line 3: the text is empty"),
        (b'{"id": "endless", "text": "' + b"and so on " * 200 + b'"}', "Record endless has"),
        (b'{"text": "fine"}\n{"text": ', "line 2: not JSON"),
        (b"", "is empty"),
    ],
)
def test_files_that_cannot_be_used(files: Path, tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "own.jsonl").write_bytes(content)
    assert says in sentence(capture(files, tmp_path / "s", corpus=tmp_path / "own.jsonl"))


def test_texts_beyond_the_context_are_cut_or_left_out_if_asked(files: Path, tmp_path: Path) -> None:
    rows = [{"id": "endless", "text": "and so on " * 200}, {"id": "short", "text": "It is."}]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for policy, counted, kept in (("truncate", "truncated", 2), ("skip", "skipped", 1)):
        out = tmp_path / policy
        result = capture(files, out, "--overlong", policy, corpus=tmp_path / "own.jsonl")
        assert result.exit_code == 0, result.stderr
        store = ActivationStore.open(out)
        assert store.facts[counted] == 1 and len(store) == kept
        assert f"{counted}" in affectlens("store", "info", out).stdout


def test_a_store_of_something_else_is_replaced_only_by_force(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    assert capture(files, out, "--sites", "resid_mid").exit_code == 0
    before = contents(out)
    said = sentence(capture(files, out, "--sites", "resid_mid", model=files / "other"))
    assert "weights" in said and str(out) in said
    assert "sites" in sentence(capture(files, out))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("")
    assert "no activation store" in sentence(capture(files, tmp_path / "notes"))
    assert contents(out) == before
    assert capture(files, out, "--force").exit_code == 0
    assert contents(out) == contents(files / "store")


def test_damage_is_named_and_only_that_is_made_again(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    assert capture(files, out).exit_code == 0
    whole, shard = contents(out), out / "shards" / "00000.safetensors"
    damaged = bytearray(shard.read_bytes())
    damaged[-5] ^= 1
    for content in (bytes(damaged), bytes(damaged[:-9])):
        shard.write_bytes(content)
        assert "00000.safetensors" in sentence(affectlens("store", "verify", out))
        assert capture(files, out).exit_code == 0
        assert contents(out) == whole


def test_a_manifest_from_the_future_and_an_unfinished_store(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    assert capture(files, out).exit_code == 0
    manifest = json.loads((out / "manifest.json").read_text())
    for changes, says in (
        ({"format_version": 99}, "newer"),
        ({"complete": False, "shards": [None]}, "not finished"),
    ):
        (out / "manifest.json").write_text(json.dumps({**manifest, **changes}))
        for command in (("info",), ("verify",), ("export", tmp_path / "x.npy", "--site", "z@0")):
            first, *rest = command
            assert says in sentence(affectlens("store", first, out, *rest))
    (out / "manifest.json").write_text(json.dumps({**manifest, "format_version": 99}))
    assert "newer" in sentence(capture(files, out))
    said = sentence(affectlens("store", "info", tmp_path / "nowhere"))
    assert "no activation store" in said


def test_a_second_writer_is_refused(files: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with FileLock(tmp_path / "s" / "writer.lock"):
        assert "Another process is writing" in sentence(capture(files, tmp_path / "s"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("x.npy", "--site", "resid_post"), "blocks.0.hook_resid_post"),
        (("x.npy", "--site", "mlp_out@0"), "Unknown site"),
        (("x.npy", "--site", "resid_post@1", "--position", "first"), "Unknown position"),
        (("x.xls", "--site", "resid_post@1"), "Unknown format 'xls'"),
        (("x.npy", "--site", "resid_post@1", "-e", "glee"), "Unknown emotion 'glee'"),
    ],
)
def test_exports_that_cannot_be(
    files: Path,
    arguments: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in sentence(affectlens("store", "export", files / "store", *arguments))


def test_exports_know_the_names_that_steering_knows(files: Path, tmp_path: Path) -> None:
    options = ("--site", "resid_post@1", "-e")
    sizes = set[int]()
    for name in ("joy", "happiness"):
        done = affectlens(
            "store", "export", files / "store", tmp_path / f"{name}.npy", *options, name
        )
        assert done.exit_code == 0, done.stderr
        sizes.add((tmp_path / f"{name}.npy").stat().st_size)
    assert len(sizes) == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_interrupted_with_ray_it_says_how_to_go_on(files: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out, texts = tmp_path / "s", save_texts(tmp_path / "many.jsonl", 600)
    options = ("--sites", "resid_post,mlp_out", "--positions", "all", "--shard-mib", "1")
    options += ("--max-tokens-per-batch", "64")
    command = [sys.executable, "-c", "from affectlens.cli import main; main()", "capture"]
    command += [str(files / "model"), texts, "--out", str(out), "--model-dtype", "float32"]
    said, complained = tmp_path / "said", tmp_path / "complained"

    def start() -> subprocess.Popen[bytes]:
        with said.open("wb") as output, complained.open("wb") as errors:
            return subprocess.Popen(
                [*command, *options, "--ray-workers", "1"],
                env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
                stdout=output,
                stderr=errors,
                # Where the tests run in the background, their children would not hear it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    running = start()

    def under_way() -> bool:
        nonlocal running
        # Ray gives itself half a minute to start, which a machine with much else to do may exceed.
        if running.poll() == 1 and "timed out during startup" in complained.read_text():
            running = start()
        return any(out.glob("shards/*.json"))

    def wait_until(true: Callable[[], object]) -> None:
        end = time.monotonic() + 900
        while not true():
            assert running.poll() is None, complained.read_text()
            assert time.monotonic() < end, complained.read_text()
            time.sleep(0.02)

    wait_until(under_way)
    # The only worker: until another one has loaded the model nobody writes, so the capture cannot
    # end before it is interrupted.
    os.kill(actors(running.pid)[0], signal.SIGKILL)
    wait_until(lambda: "worker was lost" in complained.read_text())
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=900) == 130
    assert not said.read_text()  # Ray has much to say of the lost worker
    assert "run the same command again" in complained.read_text()
    left = len(list(out.glob("shards/*.json")))

    again = capture(files, out, *options, corpus=texts)  # with one process, which writes the same
    assert again.exit_code == 0, again.stderr
    store = ActivationStore.open(out)
    store.verify()
    assert 0 < left < store.info().shards
