"""Rows kept in memory, in corpus order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from affectlens.activations.forward.plan import CapturePlan
from affectlens.activations.store.shard_file import DTYPES, torch_dtype
from affectlens.activations.store.store import ActivationStore
from affectlens.core.artefact import Provenance
from affectlens.core.errors import DataError
from affectlens.core.places import Site


class MemorySink:
    """Takes the rows of a plan and gives a store that is in memory only.

    Args:
        plan: Whose rows come.
        dtype: Name of the dtype they are kept in.

    Raises:
        UnknownNameError: If there is no such dtype.
        DataError: If it is one for disks only.
    """

    def __init__(self, plan: CapturePlan, dtype: str) -> None:
        if not DTYPES.get(dtype, torch.float32).is_floating_point:
            raise DataError(f"{dtype} is for stores on disk; name a folder, or use bfloat16.")
        self._plan, self._dtype = plan, dtype
        self._arrays = {
            (site, position): torch.empty(n, width, dtype=torch_dtype(dtype))
            for position, n in plan.rows.items()
            for site, width in plan.widths.items()
        }
        # Row in corpus order of each stored row.
        self._places = {p: torch.from_numpy(plan.stored(p)).argsort() for p in plan.rows}
        self._copies: list[tuple[Site, str, Tensor, Tensor]] = []
        self._peaks: list[tuple[Site, str, int, int, Tensor]] = []

    def begin(self, shard: int) -> None:
        """Nothing to prepare."""

    def write(self, site: Site, position: str, start: int, values: Tensor) -> None:
        """Start the copy of rows to the CPU; nothing waits for it before the shard ends."""
        n, array = len(values), self._arrays[site, position]
        places = self._places[position][start : start + n]
        peak = torch.linalg.vector_norm(values, float("inf"))  # NaN if there is one
        self._peaks.append((site, position, start, n, peak))
        if values.device.type == "cpu":
            array[places] = values.to(array.dtype)
        else:
            copy = values.to("cpu", array.dtype, non_blocking=True)
            self._copies.append((site, position, places, copy))

    def end(self) -> None:
        """Put the rows where they belong.

        Raises:
            DataError: If one holds NaN or infinity, or does not fit the dtype.
        """
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        for site, position, places, copy in self._copies:
            self._arrays[site, position][places] = copy
        self._copies.clear()
        largest = torch.finfo(torch_dtype(self._dtype)).max
        for site, position, start, n, peak in self._peaks:
            if abs(float(peak)) <= largest:
                continue
            places = self._places[position][start : start + n]
            bad = ~self._arrays[site, position][places].isfinite().all(dim=1)
            if bool(bad.any()):
                record = self._plan.record_of(position, start + int(bad.nonzero()[0]))
                raise self._unfit(site, record, float(peak))
        self._peaks.clear()

    def finish(self, provenance: Provenance, facts: Mapping[str, Any]) -> ActivationStore:
        """The store, once all shards have come."""
        return ActivationStore.in_memory(self._arrays, self._plan.table(), provenance, facts)

    def _unfit(self, site: Site, record: str, peak: float) -> DataError:
        where = f"{site.hook_name} of record {record}"
        if math.isfinite(peak):
            return DataError(
                f"{where} does not fit {self._dtype} (largest value {peak:.3g}); store bfloat16 "
                "or float32."
            )
        return DataError(
            f"{where} holds NaN or infinity; load the model in another dtype, or drop the record."
        )
