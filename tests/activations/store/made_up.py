"""Stores of random rows, whose texts lie in another order than the corpus has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectlens.activations.store.folder import Folder
from affectlens.activations.store.manifest import LABELS, STORED, row_table
from affectlens.activations.store.shards import ShardWriter, StoreSpec
from affectlens.activations.store.store import ActivationStore
from affectlens.activations.store.writer import opened_for_writing
from affectlens.core.artefact import Provenance
from affectlens.core.places import Site

SITES = (Site(0, "resid_post"), Site(1, "resid_post"), Site(1, "mlp_post"))
WIDTHS = {site: 7 if site.kind == "mlp_post" else 4 for site in SITES}
EMOTIONS = ("anger", "fear", "happiness", None)


@dataclass(frozen=True, eq=False)
class MadeUp:
    """A store to be written.

    Attributes:
        spec: What it holds.
        table: Its labels.
        values: Rows in corpus order, float32, by site and position.
        stored: Storage row of each row, by position.
    """

    spec: StoreSpec
    table: Any
    values: Mapping[tuple[Site, str], Tensor]
    stored: Mapping[str, np.ndarray]

    def write(
        self,
        out: str | Path | Folder,
        *,
        only: Collection[int] | None = None,
        step: int = 3,
        **options: bool,
    ) -> ActivationStore | None:
        """Write the shards that are missing, ``step`` rows at a time; None if not all of them."""
        with opened_for_writing(out, self.spec, self.table, **options) as session:
            with ShardWriter(session.folder, self.spec, torch.device("cpu")) as writer:
                for shard in range(len(self.spec.shards)):
                    if shard not in session.done and (only is None or shard in only):
                        self.fill(writer, shard, step)
            if only is not None:
                return None
            session.finish()
            return ActivationStore.open(session.folder)

    def fill(self, writer: ShardWriter, shard: int, step: int = 3) -> None:
        writer.begin(shard)
        for position, (start, stop) in self.spec.shards[shard].items():
            order = np.argsort(self.stored[position])
            for first in range(start, stop, step):
                rows = torch.from_numpy(order[first : min(first + step, stop)])
                for site in self.spec.widths:
                    writer.write(site, position, first, self.values[site, position][rows])
        writer.end()

    def with_provenance(self, **changes: Any) -> MadeUp:
        provenance = replace(self.spec.provenance, **changes)
        return replace(self, spec=replace(self.spec, provenance=provenance))


def made_up(
    n: int = 23,
    *,
    dtype: str = "float32",
    texts_per_shard: int = 5,
    widths: Mapping[Site, int] = WIDTHS,
    scale: float = 1.0,
    seed: int = 0,
) -> MadeUp:
    """``n`` texts of 1 to 4 tokens, read at ``last`` and ``all``."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(1, 5, n)
    order = np.argsort(-tokens, kind="stable")
    per_text = {"last": np.ones(n, int), "all": tokens}
    stored: dict[str, np.ndarray] = {}
    bounds: dict[str, np.ndarray] = {}
    for position, counts in per_text.items():
        starts = np.empty(n, int)
        starts[order] = np.cumsum(counts[order]) - counts[order]
        runs = zip(starts, counts, strict=True)
        stored[position] = np.concatenate([start + np.arange(count) for start, count in runs])
        bounds[position] = np.cumsum([0, *counts[order]])
    cuts = [*range(0, n, texts_per_shard), n]
    shards = tuple(
        {name: (int(b[start]), int(b[stop])) for name, b in bounds.items()}
        for start, stop in pairwise(cuts)
    )
    columns: dict[str, list[Any]] = {name: [] for name in (*LABELS, STORED)}
    for position, counts in per_text.items():
        for text, count in enumerate(counts):
            for token in range(count):
                columns["id"].append(f"r{text}")
                columns["emotion"].append(EMOTIONS[text % 4])
                columns["valence"].append("positive" if text % 2 else "negative")
                columns["group"].append(f"g{text // 4}")
                columns["scenario"].append(f"g{text // 8}")
                columns["theme"].append("")
                columns["split"].append("test" if text % 5 == 4 else "fit")
                columns["role"].append(None)
                columns["position"].append(position)
                columns["token"].append(token if position == "all" else tokens[text] - 1)
                columns["tokens"].append(1)
        columns[STORED].extend(stored[position].tolist())
    torch.manual_seed(seed)
    values = {
        (site, position): scale * torch.randn(len(rows), width)
        for position, rows in stored.items()
        for site, width in widths.items()
    }
    by_row = {position: np.argsort(rows) for position, rows in stored.items()}
    spec = StoreSpec(
        provenance=Provenance(
            "activations",
            model="a" * 16,
            model_name="made/up",
            corpus="b" * 16,
            parameters={"sites": [s.hook_name for s in widths], "dtype": dtype, "seed": seed},
        ),
        dtype=dtype,
        widths=widths,
        shards=shards,
        layout={"texts_per_shard": texts_per_shard},
        facts={"design": "replies", "skipped": 0},
        record_of=lambda position, row: _id(columns, position, int(by_row[position][row])),
    )
    return MadeUp(spec, row_table(columns), values, stored)


def _id(columns: Mapping[str, list[Any]], position: str, row: int) -> str:
    return columns["id"][columns["position"].index(position) + row]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


LARGE = {SITES[0]: 512, SITES[1]: 512}
"""Widths with which a store takes long enough to be killed while it is written."""
