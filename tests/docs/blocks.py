"""Blocks of code in README and docs, with what their info strings say.

A block runs, unless its info string says ``test="why it is only checked"``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_INFO = re.compile(r'(\w+)(?: test="([^"]+)")?')
_ASSIGNMENT = re.compile(r"\w+=")
_COMMENT = re.compile(r"(?:^|(?<=[ \t]))# .*$", re.MULTILINE)
_ENDS = ";&|\n"


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: Its page, relative to the repository.
        line: Where it begins.
        language: As the info string names it.
        only_checked: Why it is not run; None if it is.
        text: The code.
    """

    page: str
    line: int
    language: str
    only_checked: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """All of a page that name a language."""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "fence" and token.info.strip():
            found = _INFO.fullmatch(token.info.strip())
            assert found, f"{page}: cannot read the info string {token.info!r}"
            name = page.relative_to(ROOT).as_posix()
            assert token.map is not None
            why = found[2] or ("pages of docs/ run the like" if name == "README.md" else None)
            yield Block(name, token.map[0] + 1, found[1], why, token.content)


def blocks(*languages: str) -> list[Block]:
    """All of some languages, or of all, page by page."""
    found = [one for page in PAGES for one in blocks_of(page)]
    return [one for one in found if not languages or one.language in languages]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of a shell block, comments left out."""
    lexer = shlex.shlex(
        _COMMENT.sub("", text).replace("\\\n", " "), posix=True, punctuation_chars=_ENDS
    )
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t\r", "", True
    words: list[str] = []
    for word in [*lexer, "\n"]:
        if set(word) - set(_ENDS):
            words.append(word)
        elif words:
            yield words
            words = []


def without_variables(words: list[str]) -> list[str]:
    """A command without ``NAME=VALUE`` before it."""
    start = next((i for i, word in enumerate(words) if not _ASSIGNMENT.match(word)), len(words))
    return words[start:]
