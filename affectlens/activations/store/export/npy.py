"""NumPy: one array, which has no bfloat16 and no scales of eight bits: those become float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from affectlens.activations.store.export.format import ExportFormat, chunks, n_rows
from affectlens.activations.store.shard_file import torch_dtype
from affectlens.activations.store.store import ActivationStore
from affectlens.core.places import Site


def _write(store: ActivationStore, path: Path, site: Site, position: str) -> None:
    kind = torch_dtype(store.dtype)
    dtype = np.dtype(np.float16 if kind == torch.float16 else np.float32)
    header: dict[str, Any] = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (n_rows(store, position), store.width(site)),
    }
    with path.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, header)
        for values in chunks(store, site, position):
            shown = values.float() if kind == torch.bfloat16 else values
            handle.write(np.ascontiguousarray(shown.numpy()).data)


NPY = ExportFormat("npy", "One array, a row each, float16 or float32", _write)
