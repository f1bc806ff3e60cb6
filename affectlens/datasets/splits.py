"""Who may see what: splits and roles, always by scenario, never by row."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from affectlens.core import DataError

_K = TypeVar("_K", bound=Hashable)

DEFAULT_FRACTIONS: Mapping[str, float] = {"fit": 0.65, "tune": 0.15, "test": 0.2}
_TUNE_FIT_SCENARIOS = frozenset({8, 9})
_TUNE_TOPICS = frozenset({11, 12})
_TEST_TOPICS = frozenset(range(13, 18))


def role_of(split: str, index: int) -> str:
    """Role of the ``index``-th scenario: ``fit`` ones serve directions and judges in turn."""
    if split != "fit":
        return split
    return "direction" if index % 2 == 0 else "judge"


def authored_scenario_roles(scenarios: Sequence[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Split and role of the scenarios of one theme.

    Args:
        scenarios: ``(id, split in the file)`` of one theme; the file knows ``fit`` and ``test``.

    Returns:
        ``id -> (split, role)``. In id order the ninth and tenth fitting scenario are for tuning.
    """
    fitting = sorted(id_ for id_, split in scenarios if split == "fit")
    assigned = {id_: ("test", "test") for id_, split in scenarios if split == "test"}
    for index, id_ in enumerate(fitting):
        split = "tune" if index in _TUNE_FIT_SCENARIOS else "fit"
        assigned[id_] = (split, role_of(split, index))
    return assigned


def authored_topic_role(topic: int) -> tuple[str, str]:
    """Split and role of a topic of the ``tones`` corpus (the same in all registers)."""
    if topic in _TEST_TOPICS:
        return "test", "test"
    split = "tune" if topic in _TUNE_TOPICS else "fit"
    return split, role_of(split, topic)


def grouped_split(
    keys: Sequence[_K],
    *,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    strata: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> list[str]:
    """Assign each row a split so that rows with the same key stay together.

    Keys are shuffled (within each stratum) and cut by largest remainder, counting keys, not rows.

    Args:
        keys: One per row, for example its scenario.
        fractions: Share of the keys per split; they are normalised to sum to one.
        strata: One per row, for example its theme; the shares then hold within each stratum.
        seed: Of the shuffle. The result depends on the set of keys, not on the order of rows.

    Returns:
        The split of each row.

    Raises:
        DataError: If a fraction is negative, or none is positive, or a key has two strata.
    """
    if any(share < 0 for share in fractions.values()) or sum(fractions.values()) <= 0:
        raise DataError(f"Split fractions must be positive numbers, not {dict(fractions)}.")
    by_stratum: defaultdict[Hashable, dict[_K, None]] = defaultdict(dict)
    stratum_of: dict[_K, Hashable] = {}
    for key, stratum in zip(keys, strata or [None] * len(keys), strict=True):
        if stratum_of.setdefault(key, stratum) != stratum:
            raise DataError(f"Group {key!r} lies in two themes; give each theme its own groups.")
        by_stratum[stratum][key] = None
    assigned: dict[_K, str] = {}
    for stratum in sorted(by_stratum, key=repr):
        members = sorted(by_stratum[stratum], key=repr)
        random.Random(f"{seed}:{stratum!r}").shuffle(members)
        start = 0
        for split, count in _apportion(len(members), fractions).items():
            assigned.update(dict.fromkeys(members[start : start + count], split))
            start += count
    return [assigned[key] for key in keys]


def grouped_roles(keys: Sequence[_K], splits: Sequence[str]) -> list[str]:
    """Role of each row given its split: the ``fit`` keys alternate in order of appearance."""
    order: dict[_K, int] = {}
    roles: list[str] = []
    for key, split in zip(keys, splits, strict=True):
        if split == "fit":
            order.setdefault(key, len(order))
        roles.append(role_of(split, order.get(key, 0)))
    return roles


def _apportion(total: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that sum to ``total`` and are proportional to the fractions."""
    whole = sum(fractions.values())
    exact = {name: total * share / whole for name, share in fractions.items()}
    counts = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
