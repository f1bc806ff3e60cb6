"""Turn a hidden state towards the emotion by an angle, and keep its length.

In the plane of the hidden state and the emotion's direction, ``n = h/|h|`` and ``q`` the part of
the direction that is at right angles to ``n``, of norm 1::

    h' = |h| (cos θ n + sin θ q),   θ = min(quarter turns asked · 90°, angle to the direction)

so angle and norm are set apart: adding a vector changes both at once. Related: "Angular Steering"
(arXiv 2510.26243) turns within one fixed plane to a given angle.
"""

from __future__ import annotations

from affectlens.steering.operators.operator import Operator

ROTATE = Operator(
    "rotate",
    "Turn hidden states towards the emotion, 1 for a quarter turn, and keep their length",
    turns=True,
    share=2.0,
)
