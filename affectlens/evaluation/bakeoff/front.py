"""Which methods no other beats on everything."""

from __future__ import annotations

from collections.abc import Mapping


def pareto_front(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Names for which no other point has more of the first and less of the second.

    Args:
        points: Name to (the more the better, the less the better).

    Returns:
        The names, the cheapest first; of equal points all.
    """

    def beaten(name: str) -> bool:
        good, price = points[name]
        return any(
            other_good >= good
            and other_price <= price
            and (other_good, other_price) != (good, price)
            for other_good, other_price in points.values()
        )

    left = [name for name in points if not beaten(name)]
    return tuple(sorted(left, key=lambda name: points[name][1]))
