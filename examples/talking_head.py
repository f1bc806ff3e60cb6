"""A conditioning file for talking heads and gestures: valence, arousal, dominance per video frame.

    affectlens events "Tell me a story." | python examples/talking_head.py --fps 25 --out frames

writes ``frames.csv`` and ``frames.npz`` (arrays ``time``, ``vad`` ``[frame, 3]``, ``fps``).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

NAMES = ("valence", "arousal", "dominance")


def resampled(lines: Iterable[str], fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Times of frames, and the curve at them: straight between tokens, kept at either end.

    Tokens that arrive at once count as one, with their mean.
    """
    times: list[float] = []
    points: list[list[float]] = []
    for line in lines:
        event = json.loads(line)
        if event["vad"] is None:
            raise SystemExit("This pack's labels have no valence, arousal and dominance.")
        times.append(event["time"])
        points.append([event["vad"][name] for name in NAMES])
    if not times:
        raise SystemExit("There are no events.")
    moments, where = np.unique(np.array(times), return_inverse=True)
    sums = np.zeros((len(moments), len(NAMES)))
    np.add.at(sums, where, np.array(points))
    curve = sums / np.bincount(where)[:, None]
    frames = np.arange(int(np.floor(moments[-1] * fps)) + 1) / fps
    return frames, np.stack([np.interp(frames, moments, curve[:, i]) for i in range(3)], axis=1)


def write(out: Path, fps: float, frames: np.ndarray, vad: np.ndarray) -> None:
    """Both files."""
    with out.with_suffix(".csv").open("w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle)
        rows.writerow(["frame", "time", *NAMES])
        for i, (time, point) in enumerate(zip(frames, vad, strict=True)):
            rows.writerow([i, f"{time:.4f}", *(f"{value:.4f}" for value in point)])
    np.savez(out.with_suffix(".npz"), time=frames, vad=vad, fps=fps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fps", type=float, default=25)
    parser.add_argument("--out", type=Path, default=Path("frames"))
    given = parser.parse_args()
    write(given.out, given.fps, *resampled(sys.stdin, given.fps))
