"""Safetensors: the rows in the stored dtype (eight bits: float32), and what made them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from affectlens.activations.store.export.format import ExportFormat, chunks, n_rows
from affectlens.activations.store.shard_file import tensor_header, torch_dtype
from affectlens.activations.store.store import ActivationStore
from affectlens.core.artefact import FORMAT_VERSION, canonical_json, package_version
from affectlens.core.places import Site


def _write(store: ActivationStore, path: Path, site: Site, position: str) -> None:
    made_by = {
        "format_version": FORMAT_VERSION,
        "package_version": package_version(),
        "provenance": asdict(store.provenance),
        "extra": {"site": site.hook_name, "position": position, "rows": store.fingerprint},
    }
    shape = (n_rows(store, position), store.width(site))
    with path.open("wb") as handle:
        header = tensor_header("x", shape, torch_dtype(store.dtype), canonical_json(made_by))
        handle.write(header)
        for values in chunks(store, site, position):
            handle.write(values.contiguous().view(torch.uint8).numpy().data)


SAFETENSORS = ExportFormat(
    "safetensors", "The tensor x in the stored dtype, a row each, and what made it", _write
)
