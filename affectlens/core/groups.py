"""Groups: one content seen under every emotion, so that what it says cancels.

Every part of the package that puts records or rows into groups does it by `group_key`. The key
holds the valence: where a corpus names its groups by scenario alone, the name by itself would
throw the events of a scenario together, and they would overwrite one another without a word.

Which groups are complete, what the others lack and how much a row counts is said by `Groups`; what
follows from it (refusing, leaving out, going round) is up to the user of the groups.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

GroupKey = tuple[str, str]


def group_key(group: str, valence: str | None) -> GroupKey:
    """What rows have in common that show the same content.

    Args:
        group: Name of the group.
        valence: Valence of the content; None and "" are the same.
    """
    return group, valence or ""


def group_name(key: GroupKey) -> str:
    """A key in one word, ``"work_03:negative"``; a name that ends so already stays as it is."""
    group, valence = key
    return group if not valence or group.endswith(f":{valence}") else f"{group}:{valence}"


Cells = Mapping[GroupKey, Mapping[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Groups:
    """Rows by group and label.

    Attributes:
        emotions: What a complete group has, in this order.
        cells: Numbers of the rows of each label of each group, groups and labels in order of
            appearance. A group all of whose rows are without a label has no cell.
    """

    emotions: tuple[str, ...]
    cells: Cells

    @classmethod
    def find(
        cls,
        labels: Sequence[str | None],
        keys: Sequence[GroupKey],
        emotions: Sequence[str],
        rows: Iterable[int] | None = None,
    ) -> Groups:
        """Put rows into groups.

        Args:
            labels: Of each row, if it has one.
            keys: Of each row, see `group_key`.
            emotions: What a complete group has.
            rows: Which rows; default: all.
        """
        cells: defaultdict[GroupKey, defaultdict[str, list[int]]]
        cells = defaultdict(lambda: defaultdict(list))
        for row in range(len(keys)) if rows is None else rows:
            cell = cells[keys[row]]
            if label := labels[row]:
                cell[label].append(row)
        return cls(
            tuple(emotions),
            {key: {e: tuple(rows) for e, rows in cell.items()} for key, cell in cells.items()},
        )

    def __len__(self) -> int:
        return len(self.cells)

    def shown(self) -> Groups:
        """Without the groups that show none of the emotions: a neutral text alone says nothing."""
        wanted = set(self.emotions)
        return self._where(lambda cell: not wanted.isdisjoint(cell))

    def complete(self) -> Groups:
        """Only the groups that have every emotion, so that their content cancels."""
        return self._where(lambda cell: all(e in cell for e in self.emotions))

    def lacking(self) -> dict[GroupKey, tuple[str, ...]]:
        """The groups that are not complete, with the emotions that they lack."""
        lacks = {
            key: tuple(e for e in self.emotions if e not in cell)
            for key, cell in self.cells.items()
        }
        return {key: emotions for key, emotions in lacks.items() if emotions}

    def repeated(self) -> tuple[GroupKey, str] | None:
        """The first group with several rows of one of the emotions, and that emotion."""
        many = (
            (key, e)
            for key, cell in self.cells.items()
            for e in self.emotions
            if len(cell.get(e, ())) > 1
        )
        return next(many, None)

    def shares(self, n: int) -> list[float]:
        """Weight of each of ``n`` rows: a group counts once per emotion, shared by its rows there.

        Rows in no group, or without one of the emotions, have none.
        """
        weights = [0.0] * n
        for cell in self.cells.values():
            for emotion in self.emotions:
                for row in cell.get(emotion, ()):
                    weights[row] = 1.0 / len(cell[emotion])
        return weights

    def _where(self, wanted: Callable[[Mapping[str, tuple[int, ...]]], bool]) -> Groups:
        return Groups(self.emotions, {k: cell for k, cell in self.cells.items() if wanted(cell)})
