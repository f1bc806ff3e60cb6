"""From a store to displacements: which rows, which sites, cleaned or not."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.store.store import ActivationStore
from affectlens.core.emotions import EMOTIONS, NEUTRAL, own_emotions
from affectlens.core.errors import DataError
from affectlens.core.places import Site
from affectlens.geometry.estimators import ESTIMATORS, Estimator, Rows
from affectlens.geometry.grouping import Grouping, find_groups

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Estimation:
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
        check_moved(moved[0], float(x.square().mean(0).sum().sqrt()), site, self.emotions)
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
    return leading(singular.square(), axes.T, share)


def leading(
    variance: Float[Tensor, " axis"], axes: Float[Tensor, "d axis"], share: float = 0.5
) -> Float[Tensor, "d k"]:
    """The first principal axes that explain a share of the variance, which is given for each."""
    explained = variance.cumsum(0) / variance.sum()
    return axes[:, : int((explained < share).sum()) + 1]


def check_moved(
    moved: Float[Tensor, "emotion d"], size: float, site: Site, emotions: Sequence[str]
) -> None:
    """Refuse a site that says nothing about an emotion.

    Args:
        moved: Displacements of the emotions.
        size: Root mean square length of the site's rows.
        site: For the message.
        emotions: For the message.

    Raises:
        DataError: If one is shorter than rounding.
    """
    flat = (moved.norm(dim=-1) <= 1e-6 * size).nonzero()[:, 0]
    if len(flat):
        raise DataError(
            f"{site.hook_name} is the same under {emotions[int(flat[0])]} as under the other "
            "emotions; leave that site out."
        )


def make_estimation(
    store: ActivationStore | Mapping[Site, Tensor],
    emotions: Sequence[str] | None,
    estimator: str,
    position: str | None,
    sites: str | Site | Iterable[str | Site] | None,
) -> Estimation:
    """Settle what `directions` was asked for, or say what is wrong."""
    if emotions is None:
        known = store.label_set if isinstance(store, ActivationStore) else EMOTIONS
        emotions = own_emotions(known)
    method = chosen_estimator(estimator, emotions)
    if not isinstance(store, ActivationStore):
        store = _as_store(store, emotions)
    chosen = store.default_position(position)
    wanted = store.default_sites(sites)
    check_widths({site: store.width(site) for site in wanted})
    grouping = find_groups(store, emotions, chosen)
    check_groups(grouping, method)
    warn_of_test(store.column("split", chosen))
    return Estimation(store, method, chosen, wanted, grouping, tuple(emotions))


def chosen_estimator(name: str, emotions: Sequence[str]) -> Estimator:
    """The estimator of that name.

    Raises:
        UnknownNameError: If there is none.
        DataError: If there are not two different emotions to tell apart.
    """
    found = ESTIMATORS[name]
    if len(set(emotions)) != len(emotions) or len(emotions) < 2:
        raise DataError(f"Name at least two different emotions, not {', '.join(emotions)!r}.")
    return found


def check_widths(widths: Mapping[Site, int]) -> None:
    """Refuse sites that do not fit one tensor.

    Raises:
        DataError: Naming their kinds.
    """
    if len(set(widths.values())) > 1:
        kinds = ", ".join(dict.fromkeys(site.kind for site in widths))
        raise DataError(f"Sites of different width need directions apart; choose one of {kinds}.")


def check_groups(grouping: Grouping, method: Estimator) -> None:
    """Refuse groups that lack what an estimator needs.

    Raises:
        DataError: If emotions are missing or repeated, or the neutral tone is missing.
    """
    if method.grouped:
        grouping.require_complete()
    if method.neutral and grouping.neutral is None:
        raise DataError(
            f"Estimator {method.name} needs the neutral tone in every group; capture it too, or "
            "choose another estimator."
        )


def warn_of_test(splits: Collection[str]) -> None:
    """Say so if rows are used that should only be tested on."""
    if "test" in splits:
        logger.warning("These directions are made from test rows too; select(split='fit') first.")


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
