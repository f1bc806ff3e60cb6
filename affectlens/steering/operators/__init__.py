"""What steering does with the vectors: one file and one row each."""

from affectlens.core.registry import Registry
from affectlens.steering.operators.add import ADD
from affectlens.steering.operators.add_keep_norm import ADD_KEEP_NORM
from affectlens.steering.operators.amplify import AMPLIFY
from affectlens.steering.operators.clamp import CLAMP
from affectlens.steering.operators.operator import Operator
from affectlens.steering.operators.project_out import PROJECT_OUT
from affectlens.steering.operators.rotate import ROTATE

OPERATORS = Registry("operator", ADD, ADD_KEEP_NORM, PROJECT_OUT, CLAMP, AMPLIFY, ROTATE)
"""The operators. What reads a spec, a model's hooks and servers know them from here alone."""


def served_operators() -> tuple[str, ...]:
    """Those that servers can do."""
    return tuple(name for name, row in OPERATORS.items() if row.served)


__all__ = ["OPERATORS", "Operator", "served_operators"]
