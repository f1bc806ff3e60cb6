"""``h + s·v``."""

from __future__ import annotations

from affectlens.steering.operators.operator import Operator

ADD = Operator("add", "Add the vectors", adds=True)
