"""An arm and a judge are one row each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from affectlens.core.errors import UnknownNameError
from affectlens.evaluation import ARMS, ArmKind
from affectlens.evaluation.judges import JUDGED, JUDGES, Verdicts, judge_fingerprint, load_judge
from affectlens.evaluation.judges.registry import JudgeInfo


class Shouting:
    """Hears anger in capitals, nothing else."""

    name, labels, fingerprint = "shouting", JUDGED, "shouting"

    def __call__(self, texts: Sequence[str]) -> Verdicts:
        chosen = tuple("anger" if text.isupper() else "neutral" for text in texts)
        rows = [JUDGED.index(label) for label in chosen]
        return Verdicts(JUDGED, chosen, np.eye(len(JUDGED))[rows])


def test_a_toy_judge_is_there_by_its_name() -> None:
    toy = JudgeInfo("shouting", "hears capitals", Shouting, lambda: Shouting.fingerprint)
    with JUDGES.adding(toy):
        assert load_judge("shouting")(["NO", "no"]).chosen == ("anger", "neutral")
        assert judge_fingerprint("shouting") == "shouting"
    with pytest.raises(UnknownNameError, match="judge"):
        load_judge("shouting")


def test_a_toy_arm_is_listed_last() -> None:
    with ARMS.adding(ArmKind("louder", "louder", "circuit at twice the dose", "circuit")):
        assert list(ARMS)[-1] == "louder" and ARMS["louder"].mode == "circuit"
    for name, row in (*ARMS.items(), *JUDGES.items()):
        assert row.name == name and row.help and "\n" not in row.help
