"""Rows in groups: which rows are one content seen under every emotion.

The key of a group is that of `affectlens.core.groups`, (group, valence).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.activations.store.store import ActivationStore
from affectlens.core.emotions import NEUTRAL
from affectlens.core.errors import DataError
from affectlens.core.groups import GroupKey, Groups, group_key, group_name
from affectlens.core.statistics import times_drawn


@dataclass(frozen=True, eq=False)
class Grouping:
    """Where the rows of each group are.

    Attributes:
        keys: (group, valence) of each group, in order of appearance.
        rows: Rows that have one of the emotions.
        emotion: Index of the emotion of each of them.
        group: Index of the group of each of them.
        grid: Row of each group under each emotion; None unless each group has each once.
        neutral: Row of each group under the neutral tone; None unless each group has it once.
        incomplete: The groups that lack emotions, with what they lack.
        repeated: A group that has an emotion several times, with that emotion; None if none has.
    """

    keys: tuple[GroupKey, ...]
    rows: Int[Tensor, " n"]
    emotion: Int[Tensor, " n"]
    group: Int[Tensor, " n"]
    grid: Int[Tensor, "group emotion"] | None
    neutral: Int[Tensor, " group"] | None
    incomplete: Mapping[GroupKey, tuple[str, ...]]
    repeated: tuple[GroupKey, str] | None

    def require_complete(self) -> None:
        """Refuse groups that lack emotions (their content would not cancel) or repeat them.

        Raises:
            DataError: Saying how many, which, and what they lack.
        """
        if self.repeated is not None:
            key, emotion = self.repeated
            raise DataError(
                f"Group {group_name(key)} has {emotion} more than once; give each content a group "
                "of its own, and read a position with one row per text."
            )
        if not self.incomplete:
            return
        named = [f"{group_name(key)} lacks {', '.join(m)}" for key, m in self.incomplete.items()]
        raise DataError(
            f"{len(self.incomplete)} of {len(self.keys)} groups lack some of the emotions "
            f"({'; '.join(named[:3])}{'; ...' if len(named) > 3 else ''}); add the missing texts, "
            "leave those groups out, or ask for fewer emotions."
        )


def find_groups(
    store: ActivationStore, emotions: Sequence[str], position: str | None = None
) -> Grouping:
    """Group the rows of one position of a store; see `group_rows`."""
    labels, groups, valences = (
        store.column(name, position) for name in ("emotion", "group", "valence")
    )
    return group_rows(labels, groups, valences, emotions)


def group_rows(
    labels: Sequence[Any],
    groups: Sequence[str],
    valences: Sequence[str | None],
    emotions: Sequence[str],
) -> Grouping:
    """Group rows by their labels.

    Args:
        labels: Emotion of each row, if it has one.
        groups: Group of each row.
        valences: Valence of each row, the other half of the key.
        emotions: Which emotions make a group complete, and their order.

    Raises:
        DataError: If an emotion does not occur.
    """
    keys = [group_key(*pair) for pair in zip(groups, valences, strict=True)]
    missing = [emotion for emotion in emotions if emotion not in labels]
    if missing:
        found = ", ".join(dict.fromkeys(str(v) for v in labels if v is not None))
        raise DataError(f"There are no rows for {', '.join(missing)}; there are: {found}.")
    told = [row for row, label in enumerate(labels) if label in emotions or label == NEUTRAL]
    found = Groups.find(labels, keys, emotions, told).shown()
    incomplete, repeated = found.lacking(), found.repeated()
    triples = [
        (row, i, g)
        for g, cell in enumerate(found.cells.values())
        for i, e in enumerate(emotions)
        for row in cell.get(e, ())
    ]
    rows, emotion, group = torch.tensor(triples).T
    complete = not incomplete and repeated is None
    grid = rows.reshape(len(found), len(emotions)) if complete else None
    neutral = None
    if all(len(cell.get(NEUTRAL, ())) == 1 for cell in found.cells.values()):
        neutral = torch.tensor([cell[NEUTRAL][0] for cell in found.cells.values()])
    return Grouping(tuple(found.cells), rows, emotion, group, grid, neutral, incomplete, repeated)


def resamplings(n_groups: int, splits: int, seed: int) -> Float[Tensor, "resample group"]:
    """Weights of the groups: all of them, then the two halves of each random split.

    Raises:
        DataError: If there are fewer than two groups.
    """
    if n_groups < 2:
        raise DataError("Directions need at least two groups; there is one.")
    generator = torch.Generator().manual_seed(seed)
    weights = torch.ones(1 + 2 * splits, n_groups)
    for split in range(splits):
        order = torch.randperm(n_groups, generator=generator)
        weights[1 + 2 * split, order[n_groups // 2 :]] = 0
        weights[2 + 2 * split, order[: n_groups // 2]] = 0
    return weights


def bootstraps(n_groups: int, count: int, seed: int) -> Float[Tensor, "resample group"]:
    """How often each group is drawn, in ``count`` draws of as many groups with replacement."""
    times = times_drawn(n_groups, count, torch.Generator().manual_seed(seed))
    return torch.from_numpy(times).float()


def count_rows(labels: Iterable[Any]) -> dict[str, int]:
    """How many rows have each value of a label."""
    return dict(sorted(Counter(map(str, labels)).items()))
