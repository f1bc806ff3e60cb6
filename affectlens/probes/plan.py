"""From a store to displacements: which rows, which sites, cleaned or not."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.store import ActivationStore
from affectlens.core.emotions import NEUTRAL
from affectlens.core.errors import DataError, unknown
from affectlens.core.sites import Site
from affectlens.probes.estimators import ESTIMATORS, Estimator, Rows
from affectlens.probes.grouping import Grouping, find_groups

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Plan:
    """What to estimate from what, settled and checked."""

    store: ActivationStore
    estimator: Estimator
    position: str
    sites: tuple[Site, ...]
    grouping: Grouping
    emotions: tuple[str, ...]

    def displacements(
        self,
        site: Site,
        weight: Float[Tensor, "resample group"],
        clean: bool | ActivationStore,
    ) -> Float[Tensor, "resample emotion d"]:
        """Displacements of the emotions at a site, for each weighting of the groups.

        Raises:
            DataError: If the site shows no difference, or cleaning lacks neutral rows.
        """
        x, found = self.store.to_torch(site, self.position), self.grouping
        rows = Rows(
            x[found.rows],
            found.emotion,
            found.group,
            None if found.grid is None else x[found.grid],
            None if found.neutral is None else x[found.neutral],
        )
        moved = self.estimator.estimate(rows, weight)
        if clean is not False:
            basis = neutral_basis(self._neutral_rows(site, clean))
            moved = moved - (moved @ basis) @ basis.T
        size = x.square().mean(0).sum().sqrt()
        flat = (moved[0].norm(dim=-1) <= 1e-6 * size).nonzero()[:, 0]
        if len(flat):
            raise DataError(
                f"{site.hook_name} is the same under {self.emotions[int(flat[0])]} as under the "
                "other emotions; leave that site out."
            )
        return moved

    def _neutral_rows(self, site: Site, clean: bool | ActivationStore) -> Float[Tensor, "n d"]:
        if isinstance(clean, ActivationStore):
            return clean.to_torch(site)
        labels = self.store.column("emotion", self.position)
        neutral = torch.tensor([label == NEUTRAL for label in labels])
        return self.store.to_torch(site, self.position)[neutral]


def neutral_basis(rows: Float[Tensor, "n d"], share: float = 0.5) -> Float[Tensor, "d k"]:
    """The leading principal axes of neutral rows that explain a share of their variance.

    Raises:
        DataError: If there are fewer than two rows.
    """
    if len(rows) < 2:
        raise DataError("Cleaning needs neutral rows, at least two; capture some, or do not clean.")
    _, singular, axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    explained = singular.square().cumsum(0) / singular.square().sum()
    return axes[: int((explained < share).sum()) + 1].T


def make_plan(
    store: ActivationStore | Mapping[Site, Tensor],
    emotions: Sequence[str],
    estimator: str,
    position: str | None,
    sites: str | Site | Iterable[str | Site] | None,
) -> Plan:
    """Settle what `affectlens.probes.directions.directions` was asked for, or say what is wrong."""
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    if len(set(emotions)) != len(emotions) or len(emotions) < 2:
        raise DataError(f"Name at least two different emotions, not {', '.join(emotions)!r}.")
    if not isinstance(store, ActivationStore):
        store = _as_store(store, emotions)
    chosen = store.default_position(position)
    wanted = store.default_sites(sites)
    widths = {site: store.width(site) for site in wanted}
    if len(set(widths.values())) > 1:
        kinds = ", ".join(dict.fromkeys(site.kind for site in wanted))
        raise DataError(f"Sites of different width need directions apart; choose one of {kinds}.")
    grouping = find_groups(store, emotions, chosen)
    method = ESTIMATORS[estimator]
    if method.grouped:
        grouping.require_complete()
    if method.neutral and grouping.neutral is None:
        raise DataError(
            f"Estimator {estimator} needs the neutral tone in every group; capture it too, or "
            "choose another estimator."
        )
    if "test" in store.column("split", chosen):
        logger.warning("These directions are made from test rows too; select(split='fit') first.")
    return Plan(store, method, chosen, wanted, grouping, tuple(emotions))


def _as_store(arrays: Mapping[Site, Tensor], emotions: Sequence[str]) -> ActivationStore:
    """A store of complete groups given as tensors ``[group, emotion, d]``."""
    shapes = {tuple(x.shape[:2]) for x in arrays.values()}
    if len(shapes) != 1 or len(emotions) not in {x.shape[1] for x in arrays.values()}:
        raise DataError(
            f"Give each site a tensor [group, emotion, d] with {len(emotions)} emotions, as many "
            "groups everywhere."
        )
    n_groups = next(iter(shapes))[0]
    labels = {
        "group": [str(g) for g in range(n_groups) for _ in emotions],
        "emotion": list(emotions) * n_groups,
    }
    return ActivationStore.of({s: x.flatten(0, 1) for s, x in arrays.items()}, labels)
