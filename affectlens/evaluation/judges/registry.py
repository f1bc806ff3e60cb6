"""Judges by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from affectlens.core.registry import Registry
from affectlens.evaluation.judges.base import Judge
from affectlens.evaluation.judges.encoder import EncoderJudge, shipped_adapter
from affectlens.evaluation.judges.lexicon import LexiconJudge


@dataclass(frozen=True)
class JudgeInfo:
    """A judge that can be loaded by name.

    Attributes:
        name: What users write.
        help: One line.
        load: Makes the judge.
        fingerprint: The `Judge.fingerprint` it will have, without fetching what it needs.
    """

    name: str
    help: str
    load: Callable[[], Judge]
    fingerprint: Callable[[], str]


JUDGES: Registry[JudgeInfo] = Registry(
    "judge",
    JudgeInfo(
        EncoderJudge.name,
        "a small sentence encoder trained on the authored texts of the judge's half",
        EncoderJudge.load,
        # The adapter names the encoder it was fitted on and takes no other, so it alone tells.
        lambda: shipped_adapter().fingerprint,
    ),
    JudgeInfo(
        LexiconJudge.name,
        "counts words that express a feeling; knows nothing else",
        LexiconJudge,
        lambda: LexiconJudge().fingerprint,
    ),
)
"""The built-in judges; they share neither training nor method."""


def load_judge(name: str) -> Judge:
    """Load a built-in judge.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    return JUDGES[name].load()


def judge_fingerprint(name: str) -> str:
    """The `Judge.fingerprint` of a built-in judge, without reading (or fetching) its encoder.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    return JUDGES[name].fingerprint()
