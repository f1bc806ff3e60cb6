"""Corpora: records with an emotion, a group and a split, from our files, others' or yours."""

from affectlens.datasets.authored import elicitation_prompt
from affectlens.datasets.leakage.affect_words import affect_words
from affectlens.datasets.leakage.check import Finding, LeakageLimits, LeakageReport, check_leakage
from affectlens.datasets.registry import CORPORA, CorpusInfo, list_corpora, load, show
from affectlens.datasets.schema import DESIGNS, ROLES, SPLITS, Corpus, Message, Record, scenario_of
from affectlens.datasets.splits import grouped_split
from affectlens.datasets.spreading import spread

__all__ = [
    "CORPORA",
    "DESIGNS",
    "ROLES",
    "SPLITS",
    "Corpus",
    "CorpusInfo",
    "Finding",
    "LeakageLimits",
    "LeakageReport",
    "Message",
    "Record",
    "affect_words",
    "check_leakage",
    "elicitation_prompt",
    "grouped_split",
    "list_corpora",
    "load",
    "scenario_of",
    "show",
    "spread",
]
