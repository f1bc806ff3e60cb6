"""Cross-validation by scenario."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from affectlens.core.errors import DataError


def group_ids(keys: Sequence[Hashable]) -> Int[Tensor, " n"]:
    """A number per row, equal where the keys are, in order of appearance."""
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([number[key] for key in keys])


def assign_folds(groups: Int[Tensor, " n"], folds: int, seed: int) -> Int[Tensor, " n"]:
    """Fold of each row; a group lies in one fold, and folds have equally many groups.

    scikit-learn's ``GroupKFold(shuffle=True)`` promises the same, but draws other folds from the
    same seed: the numbers of every run would change with it.

    Raises:
        DataError: If there are fewer groups than folds, or fewer than two folds.
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    if folds < 2 or count < folds:
        raise DataError(f"Cannot make {folds} folds of {count} scenarios; use 2 to {count} folds.")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    fold_of = torch.empty(count, dtype=torch.long)
    fold_of[order] = torch.arange(count) % folds
    return fold_of[groups]


def require_apart(groups: Sequence[str], test: Bool[Tensor, " n"]) -> None:
    """Refuse scenarios that lie both in the test split and outside it.

    Raises:
        DataError: If one does.
    """
    inside = {group for group, held in zip(groups, test, strict=True) if held}
    shared = inside.intersection(g for g, held in zip(groups, test, strict=True) if not held)
    if shared:
        raise DataError(
            f"{len(shared)} scenarios lie in the test split and outside it ({min(shared)}); "
            "split by scenario."
        )
