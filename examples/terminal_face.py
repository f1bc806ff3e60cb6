"""A face in the terminal that changes with the emotion stream.

affectlens events "My train was cancelled." -e anger=1 | python examples/terminal_face.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any, TextIO


def face(vad: dict[str, float] | None) -> str:
    """Brows by dominance, eyes by arousal, mouth by valence."""
    if vad is None:
        return "( ?_? )"
    brow = "`" if vad["dominance"] > 0.1 else "~" if vad["dominance"] < -0.1 else " "
    eye = "O" if vad["arousal"] > 0.45 else "-" if vad["arousal"] < -0.1 else "o"
    valence = vad["valence"]
    mouth = "D" if valence > 0.5 else ")" if valence > 0.15 else "(" if valence < -0.15 else "|"
    return f"{brow}{eye}{brow}{eye} {mouth}"


def show(lines: Iterable[str], out: TextIO) -> None:
    """A line per event: time, face, likeliest label, token."""
    for line in lines:
        event: dict[str, Any] = json.loads(line)
        label = max(event["probabilities"], key=event["probabilities"].get)
        text = json.dumps(event["text"], ensure_ascii=False)
        out.write(
            f"{event['time']:6.2f} s  {face(event['vad']):<8}"
            f"{label:>12} {event['confidence']:4.0%}  {text}\n"
        )
        out.flush()


if __name__ == "__main__":
    show(sys.stdin, sys.stdout)
