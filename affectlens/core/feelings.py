"""Words that tell of a feeling: one list, for two judgments.

`feeling_words.txt` holds them. A word may do two things. It *names* a feeling ("furious"): prompts
and neutral texts must not, so the leakage check looks for these. Or it *expresses* one, in naming
it or otherwise ("how dare you", "champagne"): these the word judge counts, and masking takes them
out of replies. The two differ on purpose: a prompt may well speak of a funeral.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

from affectlens.core.emotions import EMOTIONS
from affectlens.core.errors import ArtefactError
from affectlens.core.jsonl import split_lines

USES = ("names", "expresses")
"""What a word may do; a section of the file that does not say which stands for both."""

OTHER = "other"
"""Feelings besides the six, which only the use ``names`` has."""


def parse_feeling_words(text: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Read the format of `feeling_words.txt`.

    Args:
        text: ``[emotion]`` or ``[emotion: use]``, then entries separated by commas. ``angr*`` is
            the beginning of a word, several words are a phrase; lines from ``#`` are left out.

    Returns:
        Use (one of :data:`USES`) to emotion to entries, in lower case.

    Raises:
        ArtefactError: If an entry stands before any section, or a section is unknown.
    """
    found: dict[str, dict[str, list[str]]] = {use: {} for use in USES}
    section: list[list[str]] = []
    for _, line in split_lines(text):
        line = line.strip()
        if line.startswith("["):
            section = _section(found, line)
            continue
        entries = [part.strip().lower() for part in line.split(",") if part.strip()]
        if line.startswith("#") or not entries:
            continue
        if not section:
            raise ArtefactError(f"The lexicon entry {line!r} stands before any [emotion].")
        for entry_list in section:
            entry_list.extend(entries)
    return {use: {e: tuple(w) for e, w in words.items()} for use, words in found.items()}


def _section(found: Mapping[str, dict[str, list[str]]], line: str) -> list[list[str]]:
    """The lists that the entries of a section belong to."""
    emotion, _, use = (part.strip() for part in line.strip("[]").partition(":"))
    if emotion not in EMOTIONS and (emotion, use) != (OTHER, "names"):
        raise ArtefactError(f"The lexicon has a section {line}; use one of {', '.join(EMOTIONS)}.")
    if use and use not in USES:
        raise ArtefactError(f"The lexicon has a section {line}; say one of {', '.join(USES)}.")
    return [found[one].setdefault(emotion, []) for one in ([use] if use else USES)]


@lru_cache(maxsize=1)
def feeling_words() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """The list that comes with the package: use to emotion to entries."""
    source = files("affectlens.core").joinpath("feeling_words.txt")
    return parse_feeling_words(source.read_text(encoding="utf-8"))
