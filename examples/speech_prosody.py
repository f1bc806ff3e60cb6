"""An SSML track for speech: pitch by valence, rate and volume by arousal, word by word.

affectlens events "Tell me a story." | python examples/speech_prosody.py > story.ssml
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from xml.sax.saxutils import escape

NEUTRAL = {"valence": 0.0, "arousal": 0.0, "dominance": 0.0}


def words(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """Words with the mean coordinates of their tokens."""
    text, points = "", []
    for line in lines:
        event: dict[str, Any] = json.loads(line)
        if text.strip() and event["text"][:1].isspace():
            yield text, _mean(points)
            text, points = "", []
        text += event["text"]
        points.append(event["vad"] or NEUTRAL)
    if text.strip():
        yield text, _mean(points)


def ssml(lines: Iterable[str]) -> str:
    """Neighbouring words that sound alike share one element."""
    spans: list[tuple[str, str]] = []
    for text, vad in words(lines):
        sound = (
            f'pitch="{round(20 * vad["valence"]):+d}%" '
            f'rate="{round(100 + 25 * vad["arousal"])}%" '
            f'volume="{6 * vad["arousal"]:+.0f}dB"'
        )
        if spans and spans[-1][0] == sound:
            spans[-1] = sound, spans[-1][1] + text
        else:
            spans.append((sound, text))
    body = "\n".join(f"  <prosody {sound}>{escape(text)}</prosody>" for sound, text in spans)
    head = '<speak version="1.1" xmlns="http://www.w3.org/2001/10/synthesis" xml:lang="en">'
    return f"{head}\n{body}\n</speak>\n"


def _mean(points: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(point[name] for point in points) / len(points) for name in NEUTRAL}


if __name__ == "__main__":
    sys.stdout.write(ssml(sys.stdin))
