"""Fitting every site of a store, a few at a time; what is finished can be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch

from affectlens.activations.store.store import ActivationStore
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.core.progress import progress
from affectlens.probes.crossval import Scored, cross_validate
from affectlens.probes.design import Design
from affectlens.probes.estimators import ProbeKind

EMBEDDINGS = Site(0, "resid_pre")
_ELEMENTS_AT_ONCE = 1 << 26  # activations held in memory
_KEPT_AT_ONCE = 4  # sites between two writes


class Kept(Protocol):
    """Where finished sites are kept, under the key of one sweep."""

    def get(self, site: Site) -> Scored | None:
        """What was kept of a site, if it was."""
        ...

    def put(self, site: Site, scored: Scored) -> None:
        """Keep a site."""
        ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Where the rows of a sweep are read.

    Attributes:
        store: Activations.
        position: Which tokens.
        sites: Of one width.
    """

    store: ActivationStore
    position: str
    sites: tuple[Site, ...]

    def __post_init__(self) -> None:
        if len({self.store.width(site) for site in self.sites}) > 1:
            kinds = ", ".join(dict.fromkeys(site.kind for site in self.sites))
            raise DataError(f"Sites of different width need sweeps apart; choose one of {kinds}.")

    @property
    def width(self) -> int:
        """Numbers per row."""
        return self.store.width(self.sites[0])

    def read(self, sites: Sequence[Site], design: Design) -> torch.Tensor:
        """Rows of a design, ``[site, n, d]``, float32.

        Raises:
            DataError: If a site (but the embeddings) is the same in all rows.
        """
        x = torch.stack([self.store.to_torch(site, self.position)[design.rows] for site in sites])
        for site, rows in zip(sites, x, strict=True):
            if site != EMBEDDINGS and bool((rows == rows[0]).all()):
                raise DataError(
                    f"All rows of {site.hook_name} at {self.position} are the same, so nothing can "
                    "be read there; choose another position or site."
                )
        return x


def fit_sites(
    rows: Rows,
    design: Design,
    penalties: Sequence[float],
    probe: ProbeKind,
    kept: Kept | None = None,
) -> Scored:
    """Cross-validate, refit and score every site."""
    done: dict[Site, Scored] = {}
    for site in rows.sites if kept is not None else ():
        found = kept.get(site) if kept is not None else None
        if found is not None:
            done[site] = found
    todo = [site for site in rows.sites if site not in done]
    step = max(1, _ELEMENTS_AT_ONCE // (len(design.rows) * rows.width))
    step = min(step, _KEPT_AT_ONCE) if kept is not None else step
    with progress("Fitting probes", len(rows.sites)) as advance:
        advance(len(done))
        for start in range(0, len(todo), step):
            some = todo[start : start + step]
            part = cross_validate(rows.read(some, design), design, penalties, probe)
            for i, site in enumerate(some):
                done[site] = _of_site(part, i)
                if kept is not None:
                    kept.put(site, done[site])
            advance(len(some))
    parts = [done[site] for site in rows.sites]
    return Scored(
        **{
            one.name: torch.cat([getattr(part, one.name) for part in parts])
            for one in fields(Scored)
        }
    )


def _of_site(part: Scored, i: int) -> Scored:
    return Scored(**{one.name: getattr(part, one.name)[i : i + 1] for one in fields(Scored)})
