"""The plane of valence and arousal, as the page's pad has it.

What a point means is computed where it is moved, in ``mixture.js``, and is what
`affectlens.steering.affect_targets.mixture_for` says; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from affectlens.core.emotions import VAD


def plane_of(emotions: Sequence[str]) -> dict[str, Any] | None:
    """Where emotions lie, as JSON; None if none of them has published coordinates.

    ``points`` are valence and arousal of each emotion, ``unplaced`` the emotions without a place.
    """
    placed = [one for one in emotions if one in VAD and any(VAD[one])]
    if not placed:
        return None
    return {
        "points": {one: list(VAD[one][:2]) for one in placed},
        "unplaced": [one for one in emotions if one not in placed],
    }
