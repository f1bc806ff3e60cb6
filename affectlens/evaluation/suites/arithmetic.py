"""Sums of small whole numbers, bare and in a sentence."""

from affectlens.evaluation.suites.base import Suite
from affectlens.evaluation.suites.wording import says

SUITE = Suite(
    "arithmetic",
    "sums of small numbers: the reply holds the result",
    lambda item, reply: says(reply, item.words("accept")),
)
