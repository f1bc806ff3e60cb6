"""The mood of a dialogue, drawn beside the words.

affectlens dialogue --file examples/bad_day.txt --json | python examples/mood_line.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any, TextIO

WIDTH = 21


def line(valence: float, arousal: float) -> str:
    """A scale from unpleasant to pleasant; the mark is louder the more aroused the mood is."""
    place = round((valence + 1) / 2 * (WIDTH - 1))
    mark = "#" if arousal > 0.3 else "+" if arousal > 0.1 else "o" if arousal > -0.1 else "."
    cells = ["-"] * WIDTH
    cells[WIDTH // 2] = "|"
    cells[place] = mark
    return "".join(cells)


def show(lines: Iterable[str], out: TextIO) -> None:
    """Three lines per turn: what the user said, the mood, what the model answered."""
    for one in lines:
        turn: dict[str, Any] = json.loads(one)
        read = max(turn["read"], key=turn["read"].get)
        state = turn["state"]
        out.write(f"user   {turn['message']}   [{read} {turn['read'][read]:.0%}]\n")
        out.write(f"mood   {line(state['valence'], state['arousal'])}   {turn['spec']}\n")
        out.write(f"model  {' '.join(turn['reply'].split())}\n\n")
        out.flush()


if __name__ == "__main__":
    show(sys.stdin, sys.stdout)
