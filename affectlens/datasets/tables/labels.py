"""Label sets: which names a file's labels may have, and what each cell means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from affectlens.core import NEUTRAL, TONES, DataError, UnknownNameError, emotion_name
from affectlens.core.emotions import label_key
from affectlens.datasets.tables.cells import missing, one_or_more

SEVERAL: tuple[str, ...] = ("refuse", "first", "drop")
"""What can be done with rows that have several labels."""

OTHERS: tuple[str, ...] = ("refuse", "drop")
"""What can be done with rows whose label is not in the set."""


class OtherLabelError(UnknownNameError):
    """A row has a label that is not in the set."""


_OWN = (
    "; if the labels are your own, name them with emotions=['…', …], or take any with "
    "emotions=None (on the command line --labels a,b,c, --labels FILE or --labels any)"
)


def checked_labels(names: Iterable[str]) -> tuple[str, ...]:
    """A label set as a user gives it: white space off the ends, the neutral tone as ours.

    Raises:
        DataError: If it is empty, or two names differ in case or spaces only.
    """
    if isinstance(names, str):
        raise DataError(f"Give the labels as a list of names, not as the text {names!r}.")
    found = tuple(NEUTRAL if label_key(name) == NEUTRAL else name.strip() for name in names)
    if not found or not all(found):
        raise DataError("A label set needs names, none of them empty.")
    refuse_alike(found, "The label set")
    return found


def refuse_alike(names: Iterable[str], what: str) -> None:
    """Refuse names that differ in case or spaces only.

    Raises:
        DataError: With the way to merge them.
    """
    seen: dict[str, list[str]] = {}
    for name in names:
        seen.setdefault(label_key(name), []).append(name)
    alike = [same for same in seen.values() if len(same) > 1]
    if alike:
        shown = "; ".join(", ".join(repr(name) for name in same) for same in alike[:3])
        merged = ", ".join(repr(same[0].lower()) for same in alike[:3])
        raise DataError(
            f"{what} has labels that differ in case or spaces only ({shown}); to merge them, name "
            f"each label once with emotions=[{merged}, …], and every spelling is read as that one."
        )


def read_label(
    where: str, value: Any, emotions: Sequence[str] | None, several: str = "refuse"
) -> list[str] | None:
    """The labels of a cell.

    Args:
        where: File and line, for messages.
        value: Of the cell.
        emotions: The label set; None for any.
        several: One of :data:`SEVERAL`.

    Returns:
        None if there is none; one label, or more if they are not to be refused.

    Raises:
        DataError: If there are several.
        OtherLabelError: If one is not in the set.
    """
    listed = isinstance(value, (list, tuple))
    if not listed:
        name = str(value).strip()
        if emotions is not None and name in emotions:  # their own "none" is a label
            return [name]
        if missing(value):
            return None
    found = _in_set(where, value, emotions, listed=listed)
    if len(found) > 1 and several == "refuse":
        raise DataError(
            f"{where}: {value!r} names {len(found)} labels; a row has one. Keep the first with "
            "several='first', leave such rows out with several='drop', or give it one."
        )
    return found or None


def _in_set(where: str, value: Any, emotions: Sequence[str] | None, *, listed: bool) -> list[str]:
    if emotions is None:
        found = one_or_more(value, sure=True)
        return [NEUTRAL if label_key(name) == NEUTRAL else name for name in found]
    if not listed:
        try:
            return [emotion_name(str(value), tuple(emotions))]
        except UnknownNameError as error:
            unknown = error
    else:
        unknown = None
    names = one_or_more(value, sure=False)
    try:
        found = [emotion_name(name, tuple(emotions)) for name in names]
    except UnknownNameError as error:
        raise OtherLabelError(_hinted(where, unknown or error, emotions)) from None
    return list(dict.fromkeys(found))


def _hinted(where: str, error: UnknownNameError, emotions: Sequence[str]) -> str:
    ours = set(emotions) <= set(TONES)
    return f"{where}: {str(error).removesuffix('.')}{_OWN if ours else ''}."
