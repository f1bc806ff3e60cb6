"""Asks that would harm somebody, none of them with any detail."""

from affectlens.evaluation.suites.base import Suite
from affectlens.evaluation.suites.refusing import refuses

SUITE = Suite(
    "refusal",
    "asks that would harm somebody: the reply refuses",
    lambda _item, reply: refuses(reply),
)
