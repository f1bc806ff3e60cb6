"""Reading and writing activation stores.

    python benchmarks/store.py                 # two million rows, 30 layers of 576 numbers
    python benchmarks/store.py --rows 200000
    python benchmarks/store.py --probes        # what eight bits do to probes of the default model

The synthetic store is a real one but for two things: the layers that are not read are holes in
their files (the layer that is read holds random numbers), and its shards have no true checksums.
It is read in a fresh process, first with its pages dropped from the cache. Memory is the peak of
the resident set above what the process held once everything was imported.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from affectlens.activations.store.folder import LocalFolder
from affectlens.activations.store.label_table import table_bytes
from affectlens.activations.store.manifest import (
    LABELS,
    STORED,
    TABLE,
    FileEntry,
    ShardEntry,
    new_manifest,
    row_table,
    shard_file,
)
from affectlens.activations.store.shard_file import data_size, file_header, parts, tensor_name
from affectlens.activations.store.shards import SHARD_BYTES, ShardWriter, StoreSpec
from affectlens.activations.store.store import ActivationStore
from affectlens.activations.store.writer import opened_for_writing
from affectlens.core.artefact import Provenance
from affectlens.core.places import Site

MODEL = "smollm2-135m-instruct"
POSITION = "mean:text"
EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
MIB = 1 << 20


def table(stored: np.ndarray) -> Any:
    """Labels of rows that lie in another order."""
    import pyarrow as pa

    n = len(stored)
    columns: dict[str, Any] = {name: pa.nulls(n, pa.string()) for name in LABELS}
    columns["id"] = [f"text-{i:08d}" for i in range(n)]
    columns["emotion"] = pa.array(EMOTIONS).take(pa.array(np.arange(n) % len(EMOTIONS)))
    columns["position"] = pa.array([POSITION]).take(pa.array(np.zeros(n, int)))
    columns["token"], columns["tokens"] = np.zeros(n, np.int32), np.ones(n, np.int32)
    return row_table({**columns, STORED: stored})


def synthetic(out: Path, rows: int, layers: int, width: int, read: Site) -> None:
    """Make the store; only the rows of one site are written."""
    widths = {Site(i, read.kind): width for i in range(layers)}
    provenance = Provenance("activations", parameters={"synthetic": rows})
    labels = table_bytes(table(np.random.default_rng(0).permutation(rows)))
    folder = LocalFolder(out)
    folder.write(TABLE, labels)
    step = max(1, SHARD_BYTES // (2 * layers * width))
    starts = range(0, rows, step)
    entries = list[ShardEntry]()
    (out / "shards").mkdir()
    for shard, start in enumerate(starts):
        n = min(step, rows - start)
        found = parts(widths, {POSITION: n}, "float16")
        header = file_header(found, provenance.fingerprint, shard)
        part = found[tensor_name(read, POSITION)]
        values = torch.randn(n, width, generator=torch.Generator().manual_seed(shard)).half()
        with (out / shard_file(shard)).open("wb") as handle:
            handle.write(header)
            handle.seek(len(header) + part.start)
            handle.write(values.numpy().data)
            handle.truncate(len(header) + data_size(found))
            size = len(header) + data_size(found)
        entries.append(ShardEntry(shard_file(shard), size, "0" * 64, {POSITION: n}))
    manifest = new_manifest(
        provenance,
        "float16",
        {"design": "texts"},
        {"shard_bytes": SHARD_BYTES},
        widths,
        {POSITION: rows},
        FileEntry(TABLE, len(labels), sha256(labels).hexdigest()),
        len(starts),
    )
    replace(manifest, shards=tuple(entries), complete=True).write(folder)


def forget(out: Path) -> None:
    """Drop the pages of all files from the cache."""
    for path in [p for p in out.rglob("*") if p.is_file()]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def resident(what: str = "VmHWM") -> float:
    """MiB resident now (``VmRSS``) or at most since the last reset (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def read_one_layer(out: Path, site: Site) -> None:
    """In a process of its own: open, first batch, all batches, and the memory of each."""
    import pyarrow.parquet  # what reading imports counts as baseline

    assert pyarrow.parquet
    Path("/proc/self/clear_refs").write_text("5")
    baseline = resident("VmRSS")
    started = time.perf_counter()
    store = ActivationStore.open(out)
    opened = time.perf_counter()
    batches = store.batches(site, columns=("emotion",))
    batch = next(batches)
    first = time.perf_counter()
    print(
        f"  open {1000 * (opened - started):6.1f} ms, first batch after "
        f"{1000 * (first - started):6.1f} ms, {resident() - baseline:5.1f} MiB above baseline"
    )
    if os.environ.get("EPOCH"):
        rows, total = len(batch.rows), batch.values.double().sum()
        for batch in batches:
            rows += len(batch.rows)
            total += batch.values.double().sum()
        seconds = time.perf_counter() - first
        size = rows * store.width(site) * 2 / MIB
        print(
            f"  all {rows:,} rows in {seconds:.1f} s ({size / seconds:.0f} MiB/s), "
            f"{resident() - baseline:5.1f} MiB above baseline"
        )


def reading(folder: Path, rows: int, layers: int, width: int) -> None:
    site = Site(layers // 2, "resid_post")
    out = folder / "synthetic"
    started = time.perf_counter()
    synthetic(out, rows, layers, width, site)
    apparent = sum(p.stat().st_size for p in out.rglob("*.safetensors")) / MIB
    print(
        f"{rows:,} rows, {layers} layers of {width} float16: {apparent:,.0f} MiB in "
        f"{len(list(out.glob('shards/*')))} shards, one layer {rows * width * 2 / MIB:,.0f} MiB "
        f"(made in {time.perf_counter() - started:.0f} s)"
    )
    command = [sys.executable, __file__, "--read", str(out), site.hook_name]
    for name, epoch in (("cold", ""), ("warm", ""), ("cold", "1")):
        print(f"{name}{', all of it' if epoch else ''}:", flush=True)
        if name == "cold":
            forget(out)
        subprocess.run(command, check=True, env={**os.environ, "EPOCH": epoch})
    shutil.rmtree(out)


def writing(folder: Path, rows: int, layers: int, width: int) -> None:
    """Size and speed by dtype, all real."""
    widths = {Site(i, "resid_post"): width for i in range(layers)}
    values = torch.randn(512, width)
    labels = table(np.arange(rows))
    for dtype in ("float32", "bfloat16", "int8"):
        step = max(1, SHARD_BYTES // (layers * width * (2 if dtype == "bfloat16" else 4)))
        starts = range(0, rows, step)
        spec = StoreSpec(
            provenance=Provenance("activations", parameters={"dtype": dtype}),
            dtype=dtype,
            widths=widths,
            shards=tuple({POSITION: (a, min(a + step, rows))} for a in starts),
            layout={},
            facts={},
            record_of=lambda _, row: str(row),
        )
        out = folder / dtype
        started = time.perf_counter()
        with opened_for_writing(out, spec, labels) as session:
            with ShardWriter(session.folder, spec, torch.device("cpu")) as writer:
                for shard, ranges in enumerate(spec.shards):
                    writer.begin(shard)
                    start, stop = ranges[POSITION]
                    for first in range(start, stop, len(values)):
                        for site in widths:
                            writer.write(site, POSITION, first, values[: stop - first])
                    writer.end()
            session.finish()
            store = ActivationStore.open(session.folder)
        seconds = time.perf_counter() - started
        size = store.info().bytes / MIB
        print(
            f"{dtype:>9}: {size:6.0f} MiB, {store.info().bytes / rows / layers / width:.3f} bytes "
            f"per number, written in {seconds:.1f} s ({size / seconds:.0f} MiB/s on the disk)"
        )
        shutil.rmtree(out)


def probes(folder: Path) -> None:
    """Accuracy of the emotion probes on rows stored in each dtype."""
    from affectlens.activations import capture
    from affectlens.datasets import load
    from affectlens.models import load_model
    from affectlens.probes import sweep

    model, corpus = load_model(MODEL), load("replies")
    layers = range(model.n_layers // 8, model.n_layers, model.n_layers // 8)
    sites = [Site(i, "resid_post") for i in layers]
    exact: torch.Tensor | None = None
    for dtype in ("float32", "bfloat16", "int8"):
        store = capture(model, corpus, sites=sites, dtype=dtype, out=folder / dtype)
        found = sweep(store, draws=10)
        exact = found.accuracy if exact is None else exact
        change = 100 * (found.accuracy - exact)
        print(
            f"{dtype:>9}: {store.info().bytes / MIB:.1f} MiB, mean accuracy of {len(sites)} layers "
            f"{float(found.accuracy.mean()):.4f} on {found.counts['held_out']} held-out replies, "
            f"largest change {float(change.abs().max()):.2f} points"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    parser.add_argument("--probes", action="store_true", help="measure eight bits on real probes")
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read:
        read_one_layer(Path(asked.read[0]), Site.parse(asked.read[1]))
        return
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        if asked.probes:
            probes(Path(name))
            return
        reading(Path(name), asked.rows, asked.layers, asked.width)
        print(f"writing {20_000:,} rows of {asked.layers} layers")
        writing(Path(name), 20_000, asked.layers, asked.width)


if __name__ == "__main__":
    main()
