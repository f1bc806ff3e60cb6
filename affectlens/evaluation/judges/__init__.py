"""Judges: blind readers of single texts, and how far each can be trusted."""

from affectlens.evaluation.judges.base import GARBLED, JUDGED, Judge, Verdicts
from affectlens.evaluation.judges.encoder import EncoderJudge
from affectlens.evaluation.judges.garble import CORRUPTIONS, Garbled, garble
from affectlens.evaluation.judges.lexicon import LexiconJudge
from affectlens.evaluation.judges.load import JUDGES, judge_fingerprint, load_judge
from affectlens.evaluation.judges.report import agreement, judge_report, refusal_report

__all__ = [
    "CORRUPTIONS",
    "GARBLED",
    "JUDGED",
    "JUDGES",
    "EncoderJudge",
    "Garbled",
    "Judge",
    "LexiconJudge",
    "Verdicts",
    "agreement",
    "garble",
    "judge_fingerprint",
    "judge_report",
    "load_judge",
    "refusal_report",
]
