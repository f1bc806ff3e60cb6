"""Asks for so many words or sentences."""

from affectlens.evaluation.suites.base import Suite
from affectlens.evaluation.suites.shapes import fits

SUITE = Suite("length", "asks for so many words or sentences: the reply has as many", fits)
