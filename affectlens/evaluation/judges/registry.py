"""Judges by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from affectlens.core.errors import unknown
from affectlens.evaluation.judges.base import Judge
from affectlens.evaluation.judges.encoder import EncoderJudge, shipped_adapter
from affectlens.evaluation.judges.lexicon import LexiconJudge

JUDGES: Mapping[str, Callable[[], Judge]] = {
    EncoderJudge.name: EncoderJudge.load,
    LexiconJudge.name: LexiconJudge,
}
"""The two built-in judges; they share neither training nor method."""


def load_judge(name: str) -> Judge:
    """Load a built-in judge.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name not in JUDGES:
        raise unknown("judge", name, JUDGES)
    return JUDGES[name]()


def judge_fingerprint(name: str) -> str:
    """The `Judge.fingerprint` of a built-in judge, without reading (or fetching) its encoder.

    The adapter names the encoder it was fitted on and takes no other, so it alone tells.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name == EncoderJudge.name:
        return shipped_adapter().fingerprint
    return load_judge(name).fingerprint
