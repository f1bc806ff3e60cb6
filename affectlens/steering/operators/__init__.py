"""What steering does with the vectors: one file and one row each."""

from affectlens.core.registry import Registry
from affectlens.steering.operators.add import ADD
from affectlens.steering.operators.add_keep_norm import ADD_KEEP_NORM
from affectlens.steering.operators.clamp import CLAMP
from affectlens.steering.operators.operator import Operator
from affectlens.steering.operators.project_out import PROJECT_OUT

OPERATORS = Registry("operator", ADD, ADD_KEEP_NORM, PROJECT_OUT, CLAMP)
"""The operators. What reads a spec, a model's hooks and servers know them from here alone."""

__all__ = ["OPERATORS", "Operator"]
