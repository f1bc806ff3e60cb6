"""Every way a user's request can fail, as one sentence that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AffectLensError(Exception):
    """Base of all errors a user can cause; the CLI prints it as one sentence and exits with 1."""


class UnknownNameError(AffectLensError):
    """A model, emotion, site, layer, position, corpus or stage that does not exist."""


class ModelError(AffectLensError):
    """Weights, tokenizer or architecture that cannot be used."""


class DataError(AffectLensError):
    """A corpus or an array that cannot give a valid result."""


class ArtefactError(AffectLensError):
    """A file of ours that is missing, cut short, hostile, or of another version."""


class MismatchError(ArtefactError):
    """An artefact made for another model, corpus or parameters."""


def closest_first(name: str, valid: Iterable[str]) -> list[str]:
    """Order the valid names by similarity to what was typed."""
    names = list(dict.fromkeys(valid))
    return sorted(
        names,
        key=lambda v: -difflib.SequenceMatcher(None, name.lower(), v.lower()).ratio(),
    )


def unknown(kind: str, name: object, valid: Iterable[str], limit: int = 12) -> UnknownNameError:
    """Build the error for a name that is not on the list, with the list, closest first.

    Args:
        kind: What the name should have been, for example ``"emotion"``.
        name: What was given.
        valid: All names that would have been accepted.
        limit: How many of them to print.
    """
    ordered = closest_first(str(name), valid)
    shown = ", ".join(ordered[:limit]) + (
        f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    )
    return UnknownNameError(f"Unknown {kind} {str(name)!r}; choose one of: {shown or '(none)'}.")
