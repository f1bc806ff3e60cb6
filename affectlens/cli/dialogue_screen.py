"""What ``affectlens dialogue`` reads and prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.cli.consoles import print_lines, stderr, stdout
from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from affectlens.steering.conversation import ConversationTurn

_SHOWN = 0.05  # a probability below is not worth a line


def said(messages: Sequence[str] | None, file: Path | None) -> Iterable[str]:
    """The user's messages: those given, those of a file, or lines as they come.

    Raises:
        DataError: If both are given, or the file has none.
        ArtefactError: If the file cannot be read.
    """
    from affectlens.datasets.tables.text_files import read_lines

    if messages and file is not None:
        raise DataError("Give messages or --file, not both.")
    if file is None:
        return messages or _typed()
    lines = [line.strip() for _, line in read_lines(file)]
    if not lines:
        raise DataError(f"{file} has no message; write one a line.")
    return lines


def _typed() -> Iterator[str]:
    asking = sys.stdin.isatty()
    while True:
        if asking:
            stderr().print("you: ", end="")
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def print_turn(turn: ConversationTurn, *, as_json: bool) -> None:
    """A turn as soon as it is there."""
    if as_json:
        print_lines([turn.to_dict()])
        return
    out = stdout()
    told = turn.to_dict()
    out.print()
    for name, text in (
        ("user", turn.message),
        ("read as", _listed(turn.read)),
        ("mood", ", ".join(f"{name} {x:+.2f}" for name, x in told["state"].items())),
        ("steered", str(turn.spec)),
        ("reply", turn.reply),
    ):
        indented = text.replace("\n", f"\n{'':10}")
        out.print(f"{name:>8}  {indented}", soft_wrap=True, markup=False)


def _listed(read: Mapping[str, float]) -> str:
    likely = sorted(read.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{name} {share:.2f}" for name, share in likely if share >= _SHOWN)
