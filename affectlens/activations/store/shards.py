"""Shards: consecutive rows of all sites and positions in one file, written behind the model.

A shard is filled in one buffer laid out as the file is, so nothing is gathered or copied again.
While the next one is filled a thread checks, hashes and writes it: first the file, then a receipt
that makes it count. There are never more than two buffers.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.store.folder import Bytes, Folder
from affectlens.activations.store.manifest import ShardEntry, plain_entry, receipt_file, shard_file
from affectlens.activations.store.quantise import quantise
from affectlens.activations.store.shard_file import (
    COLUMN_SCALE,
    ROW_SCALE,
    Part,
    data_size,
    file_header,
    parts,
    tensor_name,
    torch_dtype,
)
from affectlens.core.artefact import Provenance
from affectlens.core.errors import DataError
from affectlens.core.places import Site

SHARD_BYTES, SHARD_ROWS = 32 << 20, 64
"""A shard is this large, or has this many rows where rows are large; see `shard_size`."""


@dataclass(frozen=True, eq=False)
class StoreSpec:
    """What a store is to hold.

    Attributes:
        provenance: What makes it.
        dtype: Name in `files.DTYPES`.
        widths: Its sites, with their width.
        shards: Per shard and position, the rows ``[start, stop)`` in storage order.
        layout: What the shards were planned by; kept in the manifest for whoever goes on.
        facts: What the manifest says beyond that (design, counts).
        record_of: Names the record of a position's stored row, for messages.
    """

    provenance: Provenance
    dtype: str
    widths: Mapping[Site, int]
    shards: tuple[Mapping[str, tuple[int, int]], ...]
    layout: Mapping[str, Any]
    facts: Mapping[str, Any]
    record_of: Callable[[str, int], str]

    def rows(self, shard: int) -> dict[str, int]:
        """How many rows of each position a shard holds."""
        return {position: stop - start for position, (start, stop) in self.shards[shard].items()}

    def positions(self) -> dict[str, int]:
        """How many rows each position has."""
        total = Counter[str]()
        for shard in range(len(self.shards)):
            total.update(self.rows(shard))
        return dict(total)


def filling_dtype(dtype: str) -> str:
    """What a shard is filled in: eight bits need all rows of a column before they have scales."""
    return "float32" if dtype == "int8" else dtype


def bytes_per_row(widths: Mapping[Site, int], dtype: str) -> int:
    """Memory one row of one position takes in a shard being filled, all sites together.

    int8 is filled in float32, so its files are a quarter of what they take in memory.
    """
    return sum(widths.values()) * torch_dtype(dtype).itemsize


def shard_size(wanted: int | None, row_bytes: int) -> int:
    """Bytes of a shard; if nobody says, small beside the model, and rows enough for a batch."""
    return max(SHARD_BYTES, SHARD_ROWS * row_bytes) if wanted is None else wanted


@dataclass(eq=False)
class _Written:
    """Rows that came, and their largest value, still on the device."""

    site: Site
    position: str
    start: int
    n: int
    peak: Tensor


@dataclass(eq=False)
class _Filling:
    """A shard on its way to the disk."""

    shard: int
    views: Mapping[tuple[Site, str], Tensor]
    data: Bytes
    written: list[_Written] = field(default_factory=list)
    counts: Counter[tuple[Site, str]] = field(default_factory=Counter)
    peaks: Tensor = field(default_factory=lambda: torch.zeros(0))
    copied: Any = None


class ShardWriter:
    """Takes rows in storage order, shard by shard (a `Sink`), and writes them to a folder.

    Takes no lock: see `affectlens.activations.store.writer`.

    Args:
        folder: Of the store.
        spec: What the store holds.
        device: Where the rows are computed.
    """

    def __init__(self, folder: Folder, spec: StoreSpec, device: torch.device) -> None:
        self._folder, self._spec, self._device = folder, spec, device
        self._buffers: list[Bytes] = []
        self._turn = 0
        self._filling: _Filling | None = None
        self._writing: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shards")

    def begin(self, shard: int) -> None:
        """Start a shard. Its buffer is that of the last but one, which is written by now."""
        kind = filling_dtype(self._spec.dtype)
        found = parts(self._spec.widths, self._spec.rows(shard), kind)
        data = self._buffer(data_size(found))
        views = {
            (site, position): found[name].of(data)
            for position in self._spec.shards[shard]
            for site in self._spec.widths
            if (name := tensor_name(site, position)) in found
        }
        self._filling = _Filling(shard, views, data)

    def write(
        self, site: Site, position: str, start: int, values: Float[Tensor, "n width"]
    ) -> None:
        """Put rows where they belong; nothing waits for the copy before the shard ends.

        Args:
            site: Where they were read.
            position: Which tokens they were read from.
            start: Storage row of the first.
            values: On the device, in any floating dtype.
        """
        filling = self._filling
        assert filling is not None, "begin a shard first"
        n = len(values)
        if not n:
            return
        first = start - self._spec.shards[filling.shard][position][0]
        rows = filling.views[site, position][first : first + n]
        peak = torch.linalg.vector_norm(values, float("inf"))  # NaN if there is one
        filling.written.append(_Written(site, position, start, n, peak))
        filling.counts[site, position] += n
        rows.copy_(values.to(rows.dtype), non_blocking=values.is_cuda)

    def end(self) -> None:
        """Hand the shard to the thread, once the one before is written.

        Raises:
            DataError: If a row of the shard before holds NaN or infinity, or does not fit.
            ArtefactError: If it could not be written.
            ValueError: If rows of this one are missing.
        """
        filling = self._filling
        assert filling is not None, "begin a shard first"
        self._filling = None
        short = {key: len(v) for key, v in filling.views.items() if filling.counts[key] != len(v)}
        if short:
            (site, position), n = next(iter(short.items()))
            raise ValueError(
                f"shard {filling.shard} was given {filling.counts[site, position]} of {n} rows of "
                f"{tensor_name(site, position)}"
            )
        peaks = [written.peak.float().to(self._device) for written in filling.written]
        with torch.inference_mode(False):
            filling.peaks = torch.empty(len(peaks), pin_memory=self._device.type == "cuda")
        if peaks:
            filling.peaks.copy_(torch.stack(peaks), non_blocking=self._device.type == "cuda")
        filling.copied = _marks()
        self._wait()
        self._writing = self._thread.submit(self._write, filling)
        self._turn = 1 - self._turn

    def close(self) -> None:
        """Wait until everything is written.

        Raises:
            DataError, ArtefactError: As `end`.
        """
        try:
            self._wait()
        finally:
            self._thread.shutdown()
            self._buffers.clear()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()
            return
        self._thread.shutdown()  # what is under way is still written; the first error counts
        self._buffers.clear()

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _buffer(self, size: int) -> Bytes:
        """The buffer whose turn it is; large enough for every shard, so that it is made once."""
        if self._turn == len(self._buffers):
            kind = filling_dtype(self._spec.dtype)
            sizes = (
                data_size(parts(self._spec.widths, self._spec.rows(i), kind))
                for i in range(len(self._spec.shards))
            )
            with torch.inference_mode(False):
                pinned = self._device.type == "cuda"
                made = torch.empty(max(sizes), dtype=torch.uint8, pin_memory=pinned)
            self._buffers.append(made.numpy())
        return self._buffers[self._turn][:size]

    def _write(self, filling: _Filling) -> None:
        for event in filling.copied:
            event.synchronize()
        self._check(filling)
        spec, shard = self._spec, filling.shard
        rows = spec.rows(shard)
        found = parts(spec.widths, rows, spec.dtype)
        data = _quantised(found, filling) if spec.dtype == "int8" else filling.data
        header = file_header(found, spec.provenance.fingerprint, shard)
        digest = hashlib.sha256(header)
        digest.update(data.data)
        file = shard_file(shard)
        self._folder.write(file, header, data.data)
        entry = ShardEntry(file, len(header) + len(data), digest.hexdigest(), rows)
        self._folder.write(receipt_file(shard), json.dumps(plain_entry(entry)).encode())

    def _check(self, filling: _Filling) -> None:
        """Refuse what is not a number, or is none any more in the dtype of the store."""
        largest = torch.finfo(torch_dtype(self._spec.dtype)).max
        for written, peak in zip(filling.written, filling.peaks.tolist(), strict=True):
            if abs(peak) <= largest:
                continue
            first = written.start - self._spec.shards[filling.shard][written.position][0]
            rows = filling.views[written.site, written.position][first : first + written.n]
            bad = (~rows.isfinite().all(dim=1)).nonzero()
            if not len(bad):  # just beyond the largest value, and rounded down to it
                continue
            wrong = written.start + int(bad[0])
            record = self._spec.record_of(written.position, wrong)
            where = f"{written.site.hook_name} of record {record}"
            if np.isfinite(peak):
                raise DataError(
                    f"{where} does not fit {self._spec.dtype} (largest value {peak:.3g}); store "
                    "bfloat16 or float32."
                )
            raise DataError(
                f"{where} holds NaN or infinity; load the model in another dtype, or drop the "
                "record."
            )


def _marks() -> list[Any]:
    """Events after everything that was asked of the GPUs so far."""
    marks = list[Any]()
    if torch.cuda.is_initialized():
        for i in range(torch.cuda.device_count()):
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(i))
            marks.append(event)
    return marks


def _quantised(found: Mapping[str, Part], filling: _Filling) -> Bytes:
    """The bytes of an ``int8`` shard."""
    data = np.empty(data_size(found), np.uint8)
    for (site, position), values in filling.views.items():
        name = tensor_name(site, position)
        codes, row_scale, column_scale = quantise(values)
        found[name].of(data).copy_(codes)
        found[f"{name}/{ROW_SCALE}"].of(data).copy_(row_scale)
        found[f"{name}/{COLUMN_SCALE}"].of(data).copy_(column_scale)
    return data
