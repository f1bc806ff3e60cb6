"""From a point on the plane of valence and arousal to a mixture of emotions.

The emotions' published points and the origin (nothing is felt) are the corners of triangles
(Delaunay), and a point's weights are its barycentric coordinates in the triangle it lies in. So a
mixture depends on its nearest corners alone, is exactly one emotion at that emotion's point and
nothing at the origin, changes without jumps as the point moves, and its own valence and arousal
(``Σ w·(v, a)``) are those of the point. A point outside the triangles gets the mixture of the
nearest point inside: no published emotion lies there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from affectlens.core.emotions.coordinates import coordinates

Point = tuple[float, float]
_FLAT = 1e-9


@dataclass(frozen=True)
class EmotionPlane:
    """Where emotions lie, and the triangles between them.

    Attributes:
        points: Valence and arousal of each corner; the first is the origin.
        labels: Of each corner, the emotions that lie there; none at the origin.
        simplices: Corners of each triangle; pairs where all corners lie on a line.
        unplaced: Emotions without published coordinates.
    """

    points: tuple[Point, ...]
    labels: tuple[tuple[str, ...], ...]
    simplices: tuple[tuple[int, ...], ...]
    unplaced: tuple[str, ...]

    @classmethod
    def of(cls, emotions: Iterable[str]) -> EmotionPlane:
        """The plane of some emotions, each where its term was rated."""
        corners: dict[Point, list[str]] = {(0.0, 0.0): []}
        unplaced: list[str] = []
        for emotion in emotions:
            found = coordinates(emotion)
            if found is None:
                unplaced.append(emotion)
            elif (point := (found.valence, found.arousal)) != (0.0, 0.0):
                corners.setdefault(point, []).append(emotion)
        points = tuple(corners)
        labels = tuple(tuple(names) for names in corners.values())
        return cls(points, labels, _simplices(points), tuple(unplaced))

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "points": [list(point) for point in self.points],
            "labels": [list(names) for names in self.labels],
            "simplices": [list(corners) for corners in self.simplices],
            "unplaced": list(self.unplaced),
        }


@dataclass(frozen=True)
class Mixture:
    """What a point means.

    Attributes:
        weights: Emotion to its share, from 0 to 1; they sum to at most 1, the rest is nothing.
        reached: The point whose mixture it is: the one asked for, or the nearest there is.
    """

    weights: dict[str, float]
    reached: Point


def mixture_at(plane: EmotionPlane, valence: float, arousal: float) -> Mixture:
    """The mixture of emotions at a point; see above for how it is computed.

    Args:
        plane: Of the emotions.
        valence, arousal: In [-1, 1].
    """
    best, weights, corners = math.inf, (1.0,), (0,)
    for simplex in plane.simplices:
        found = _nearest((valence, arousal), [plane.points[i] for i in simplex])
        reached = _at(found, [plane.points[i] for i in simplex])
        distance = math.dist(reached, (valence, arousal))
        if distance < best - _FLAT:
            best, weights, corners = distance, found, simplex
    mixed: dict[str, float] = {}
    for weight, corner in zip(weights, corners, strict=True):
        for label in plane.labels[corner]:
            if weight > _FLAT:
                mixed[label] = weight / len(plane.labels[corner])
    return Mixture(mixed, _at(weights, [plane.points[i] for i in corners]))


def _at(weights: Sequence[float], corners: Sequence[Point]) -> Point:
    valence = sum(w * corner[0] for w, corner in zip(weights, corners, strict=True))
    arousal = sum(w * corner[1] for w, corner in zip(weights, corners, strict=True))
    return valence, arousal


def _nearest(point: Point, corners: Sequence[Point]) -> tuple[float, ...]:
    """Barycentric coordinates of the point of a triangle (segment, corner) nearest to another."""
    if len(corners) == 1:
        return (1.0,)
    if len(corners) == 2:
        return _on_segment(point, corners[0], corners[1])
    inside = _barycentric(point, corners)
    if min(inside) >= 0:
        return inside
    best, found = math.inf, (0.0, 0.0, 0.0)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        a, b = _on_segment(point, corners[i], corners[j])
        distance = math.dist(point, _at((a, b), (corners[i], corners[j])))
        if distance < best:
            weights = [0.0, 0.0, 0.0]
            weights[i], weights[j] = a, b
            best, found = distance, (weights[0], weights[1], weights[2])
    return found


def _on_segment(point: Point, start: Point, end: Point) -> tuple[float, float]:
    along = (end[0] - start[0], end[1] - start[1])
    length = along[0] ** 2 + along[1] ** 2
    share = ((point[0] - start[0]) * along[0] + (point[1] - start[1]) * along[1]) / length
    share = min(1.0, max(0.0, share))
    return 1 - share, share


def _barycentric(point: Point, corners: Sequence[Point]) -> tuple[float, float, float]:
    (x, y), (ax, ay), (bx, by), (cx, cy) = point, *corners
    area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy)
    a = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / area
    b = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / area
    return a, b, 1 - a - b


def _simplices(points: Sequence[Point]) -> tuple[tuple[int, ...], ...]:
    """Triangles between the corners; segments where all lie on one line, a corner if it is one."""
    if len(points) == 1:
        return ((0,),)
    far = max(points, key=lambda p: math.hypot(*p))  # the first corner is the origin
    if all(abs(far[0] * p[1] - far[1] * p[0]) <= _FLAT for p in points):
        along = sorted(
            range(len(points)), key=lambda i: points[i][0] * far[0] + points[i][1] * far[1]
        )
        return tuple((along[k], along[k + 1]) for k in range(len(along) - 1))
    from scipy.spatial import Delaunay

    found: Any = Delaunay(list(points))
    return tuple(sorted(tuple(sorted(int(i) for i in one)) for one in found.simplices))
