"""The stage ``judge``."""

from __future__ import annotations

from collections.abc import Sequence

from affectlens.core.artefact import write_json
from affectlens.pipeline.settings import JudgeSettings
from affectlens.pipeline.stage import StageRun

JUDGED = "judge.json"


def judge(run: StageRun) -> Sequence[str]:
    """How far the judges can be trusted, on groups that they have not seen."""
    from affectlens.evaluation.judges import agreement, judge_report, refusal_report

    settings: JudgeSettings = run.settings
    corpora = {name: run.corpus(name).filter(split="test") for name in settings.corpora}
    texts = [record.text for corpus in corpora.values() for record in corpus]
    pieces = sorted({word for text in texts for word in text.split()})
    write_json(
        run.folder / JUDGED,
        {
            "judge": judge_report(run.judge, corpora),
            "second": judge_report(run.lexicon, corpora),
            "garbled": refusal_report(
                run.judge, texts, n=settings.garbled, seed=settings.seed, pieces=pieces
            ),
            "judges": {judge.name: judge.fingerprint for judge in (run.judge, run.lexicon)},
            "agreement": agreement([run.judge, run.lexicon], texts),
        },
    )
    return [JUDGED]
