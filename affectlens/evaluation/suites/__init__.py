"""Side effects: small suites that say whether a steered model can still do what it could."""

from affectlens.core.registry import Registry
from affectlens.evaluation.suites.arithmetic import SUITE as ARITHMETIC
from affectlens.evaluation.suites.base import Item, Suite
from affectlens.evaluation.suites.factual import SUITE as FACTUAL
from affectlens.evaluation.suites.format import SUITE as FORMAT
from affectlens.evaluation.suites.harmless import SUITE as HARMLESS
from affectlens.evaluation.suites.length import SUITE as LENGTH
from affectlens.evaluation.suites.privacy import SUITE as PRIVACY
from affectlens.evaluation.suites.refusal import SUITE as REFUSAL
from affectlens.evaluation.suites.sycophancy import SUITE as SYCOPHANCY

__all__ = ["SUITES", "Item", "Suite"]

SUITES: Registry[Suite] = Registry(
    "suite", FACTUAL, ARITHMETIC, REFUSAL, HARMLESS, SYCOPHANCY, PRIVACY, FORMAT, LENGTH
)
"""Every suite, in the order of tables."""
