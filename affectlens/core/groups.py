"""Groups: one content seen under every emotion, so that what it says cancels.

Every part of the package that puts records or rows into groups does it by `group_key`. The key
holds the valence: where a corpus names its groups by scenario alone, the name by itself would
throw the events of a scenario together, and they would overwrite one another without a word.
"""

from __future__ import annotations

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
