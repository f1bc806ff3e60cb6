"""Which rows of a store a probe is fitted on and scored by, the same at every site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.core.errors import DataError
from affectlens.probes.folds import assign_folds, group_ids, require_apart
from affectlens.probes.targets import Labels, Target


@dataclass(frozen=True, eq=False)
class Design:
    """Which rows are fitted and scored, the same at every site.

    Attributes:
        target: What is read, for messages and tables.
        classes: Labels; none if the target is a number.
        rows: Rows of the store that have a value; what follows counts within these.
        y: Class of each row (int64), or its number (float32).
        fit: Whether a row is fitted on.
        fold: Fold of each fitting row, -1 for the others.
        folds: How many.
        nested: Whether the held-out rows are those of the outer folds.
        groups: Scenario of each row.
    """

    target: str
    classes: tuple[str, ...]
    rows: Int[Tensor, " rows"]
    y: Tensor
    fit: Bool[Tensor, " n"]
    fold: Int[Tensor, " n"]
    folds: int
    nested: bool
    groups: tuple[str, ...]

    @property
    def held(self) -> Bool[Tensor, " n"]:
        """Whether a row is scored in the end."""
        return self.fit if self.nested else ~self.fit

    @cached_property
    def held_groups(self) -> list[str]:
        """Scenario of each held-out row."""
        return [group for group, held in zip(self.groups, self.held, strict=True) if held]

    @property
    def held_out(self) -> str:
        """In words: what the held-out rows are."""
        return "nested cross-validation" if self.nested else "test split"

    def majority(self) -> float:
        """Share of held-out rows in the class most frequent in the fitting rows."""
        top = self.y[self.fit].mode().values
        return float((self.y[self.held] == top).float().mean())

    def without(self, *left_out: int) -> Float[Tensor, " n"]:
        """Weights of the rows with some folds left out."""
        return (self.fit & ~torch.isin(self.fold, torch.tensor(left_out))).float()

    @cached_property
    def without_each(self) -> Float[Tensor, "fold n"]:
        """Weights of the rows with one fold left out, for each of them."""
        return torch.stack([self.without(fold) for fold in range(self.folds)])

    @cached_property
    def in_fold(self) -> Bool[Tensor, "fold n"]:
        """Which fitting rows are in each fold."""
        return torch.stack([self.fold == fold for fold in range(self.folds)])

    @property
    def least_folds(self) -> int:
        """In how many folds a class has to lie; of nested ones two may be left out at once."""
        return 3 if self.nested else 2

    @property
    def spread(self) -> bool:
        """Whether every class lies in so many folds that no fit lacks one."""
        return all(self.folds_of(i) >= self.least_folds for i in range(len(self.classes)))

    def folds_of(self, label: int) -> int:
        """In how many folds the fitting rows of a class lie."""
        return len(self.fold[self.fit & (self.y == label)].unique())

    def taken(self, index: Bool[Tensor, " n"] | Int[Tensor, " chosen"]) -> Design:
        """The design of some of its rows, or of rows taken several times."""
        chosen = torch.arange(len(self.y))[index].tolist()
        return replace(
            self,
            rows=self.rows[index],
            y=self.y[index],
            fit=self.fit[index],
            fold=self.fold[index],
            groups=tuple(self.groups[i] for i in chosen),
        )

    def good(self, said: Float[Tensor, "*fit n output"]) -> Float[Tensor, "*fit n"]:
        """How good what is said of every row is; see `goodness`."""
        return goodness(said, self.y, bool(self.classes))


def goodness(
    said: Float[Tensor, "*fit n output"], truth: Tensor, classes: bool
) -> Float[Tensor, "*fit n"]:
    """Of each row: 1 if its class is right, else 0; of numbers, less the squared error.

    Args:
        said: Scores of the classes, or one number.
        truth: Class of each row, or its number.
        classes: Which of the two.
    """
    if classes:
        return (said.argmax(-1) == truth).float()
    return -(said[..., 0] - truth).square()


def make_design(
    target: Target, splits: Sequence[str], groups: Sequence[str], folds: int, seed: int
) -> Design:
    """Decide what is fitted and what is held out; see `affectlens.probes.sweep.sweep`.

    Args:
        target: Of every row.
        splits: ``"test"`` is held out; if no row is, or all are, the outer folds are.
        groups: What must not be spread over fitting and held-out rows.
        folds: How many.
        seed: Of the folds.

    Raises:
        DataError: If there are too few groups or rows of a class, no test row has a value, or
            groups lie in the test split and outside it.
    """
    labels = isinstance(target, Labels)
    wanted = set(target.classes) if labels else None
    values = target.values
    if len({len(values), len(splits), len(groups)}) > 1:
        raise DataError(
            f"{target.name} has {len(values)} values for {len(splits)} rows and {len(groups)} "
            "groups; give every row one."
        )
    rows = [
        i for i, v in enumerate(values) if (v in wanted if wanted is not None else v is not None)
    ]
    if not rows:
        raise DataError(f"No row has a value of {target.name}.")
    test = torch.tensor([splits[i] == "test" for i in rows])
    if "test" in splits and not all(split == "test" for split in splits) and not bool(test.any()):
        raise DataError(
            f"The test split has no row with {target.name}; label some, or leave the test split "
            "out to be scored by nested cross-validation."
        )
    if labels:
        index = {name: i for i, name in enumerate(target.classes)}
        y = torch.tensor([index[str(values[i])] for i in rows])
    else:
        y = torch.tensor([values[i] for i in rows], dtype=torch.float32)
    nested = bool(test.all()) or not bool(test.any())
    fit = torch.ones_like(test) if nested else ~test
    mine = tuple(str(groups[i]) for i in rows)
    require_apart(mine, test)
    fold = torch.full((len(rows),), -1)
    fitted = [g for g, used in zip(mine, fit, strict=True) if used]
    fold[fit] = assign_folds(group_ids(fitted), folds, seed)
    classes = target.classes if labels else ()
    design = Design(target.name, classes, torch.tensor(rows), y, fit, fold, folds, nested, mine)
    _check_classes(design)
    return design


def _check_classes(design: Design) -> None:
    """Refuse a class that some fit would lack, by its name."""
    for i, name in enumerate(design.classes):
        of_class = design.fit & (design.y == i)
        groups = {g for g, used in zip(design.groups, of_class, strict=True) if used}
        spread, least = design.folds_of(i), design.least_folds
        if spread < least:
            raise DataError(
                f"Class {name!r} of {design.target} has {int(of_class.sum())} fitting rows in "
                f"{len(groups)} groups, which lie in {spread} of {design.folds} folds; it needs "
                f"{least} or more, so drop it, add rows, or use other folds (seed)."
            )
