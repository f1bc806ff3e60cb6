"""Whose verdicts count in a run: the shipped judges, or those of a user's own labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core.artefact import fingerprint
from affectlens.pipeline.own.choice import CLASSIFIER, ENDPOINT, FITTED

if TYPE_CHECKING:
    from affectlens.evaluation.judges import Judge
    from affectlens.pipeline.own import OwnCorpus

JUDGE = "judges.json"
FITTED_FILE = "judge.safetensors"
WORDS_FILE = "words_judge.safetensors"
"""What the stage ``fit_judge`` writes, relative to the run folder."""


def main_judge(own: OwnCorpus | None, labels: tuple[str, ...], folder: Path) -> Judge:
    """The judge whose verdicts are the accuracy.

    Args:
        own: What the user asked; None for the shipped corpora.
        labels: Of the run.
        folder: Of the run.

    Raises:
        AffectLensError: If it cannot be read, or nothing answers.
    """
    from affectlens.evaluation.judges import (
        ClassifierJudge,
        EncoderJudge,
        EndpointJudge,
        load_judge,
    )

    if own is None:
        return load_judge("encoder")
    if own.judge_kind == ENDPOINT:
        return EndpointJudge.at(str(own.judge), labels)
    if own.judge_kind == CLASSIFIER:
        return ClassifierJudge.load(Path(str(own.judge)), labels)
    return EncoderJudge.load(folder / FITTED_FILE)


def second_judge(own: OwnCorpus | None, folder: Path) -> Judge:
    """A judge as unlike the first as can be.

    Raises:
        ArtefactError: If the one of a user's own labels is damaged.
    """
    from affectlens.evaluation.judges import WordsJudge, load_judge

    return load_judge("lexicon") if own is None else WordsJudge.load(folder / WORDS_FILE)


def named_judge(own: OwnCorpus) -> str:
    """Fingerprint of what a user named as judge; of a fitted one its kind alone."""
    from affectlens.evaluation.judges.classifier import folder_marks

    if own.judge_kind == CLASSIFIER:
        return fingerprint(folder_marks(Path(str(own.judge))))
    return FITTED if own.judge_kind == FITTED else fingerprint(own.judge)
