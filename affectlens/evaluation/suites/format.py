"""Asks for a list, JSON, capitals, a single word: the shape of the reply, whatever it says."""

from affectlens.evaluation.suites.base import Suite
from affectlens.evaluation.suites.shapes import fits

SUITE = Suite("format", "asks for a shape (list, JSON, one word, …): the reply has it", fits)
