"""Judges: blind readers of single texts, and how far each can be trusted."""

from affectlens.evaluation.judges.base import GARBLED, JUDGED, UNJUDGED, Judge, Verdicts
from affectlens.evaluation.judges.classifier import ClassifierJudge, classifier_labels
from affectlens.evaluation.judges.corruptions import CORRUPTIONS, HELD_OUT, TRAINED
from affectlens.evaluation.judges.encoder import EncoderJudge
from affectlens.evaluation.judges.endpoint import EndpointJudge
from affectlens.evaluation.judges.garbling import Garbled, garble
from affectlens.evaluation.judges.lexicon import LexiconJudge
from affectlens.evaluation.judges.registry import JUDGES, judge_fingerprint, load_judge
from affectlens.evaluation.judges.report import (
    agreement,
    judge_report,
    long_text_report,
    refusal_report,
)
from affectlens.evaluation.judges.words import WordsJudge

__all__ = [
    "CORRUPTIONS",
    "GARBLED",
    "HELD_OUT",
    "JUDGED",
    "JUDGES",
    "TRAINED",
    "UNJUDGED",
    "ClassifierJudge",
    "EncoderJudge",
    "EndpointJudge",
    "Garbled",
    "Judge",
    "LexiconJudge",
    "Verdicts",
    "WordsJudge",
    "agreement",
    "classifier_labels",
    "garble",
    "judge_fingerprint",
    "judge_report",
    "load_judge",
    "long_text_report",
    "refusal_report",
]
