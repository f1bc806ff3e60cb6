"""``(h + s·v) · |h| / |h + s·v|``: turn a hidden state without making it longer."""

from __future__ import annotations

from affectlens.steering.operators.operator import Operator

ADD_KEEP_NORM = Operator(
    "add_keep_norm",
    "Add the vectors and keep the length of what they are added to",
    adds=True,
    keeps_norm=True,
)
