"""The stage ``fit_judge``: whose verdicts decide, settled before anything is steered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from affectlens.core.artefact import write_json
from affectlens.pipeline.judges import FITTED_FILE, JUDGE, WORDS_FILE
from affectlens.pipeline.own.choice import FITTED
from affectlens.pipeline.settings import FitJudgeSettings
from affectlens.pipeline.stage import StageRun


def fit_judge(run: StageRun) -> Sequence[str]:
    """Fit judges of one's own labels; the shipped ones, or one that is named, are only noted."""
    settings: FitJudgeSettings = run.settings
    if not settings.labels:
        facts = {"judge": run.judge.fingerprint, "lexicon": run.lexicon.fingerprint}
        write_json(run.folder / JUDGE, {"kind": settings.kind, **facts})
        return [JUDGE]
    from affectlens.evaluation.judges import WordsJudge
    from affectlens.evaluation.judges.encoder import ENCODER
    from affectlens.evaluation.judges.fitting import fit_judge as fit
    from affectlens.evaluation.judges.training_data import Example, own_training_set
    from affectlens.models.registry import pull

    records = run.corpus("replies").filter(role=settings.roles).records
    examples = [Example(record.text, str(record.emotion)) for record in records]
    WordsJudge.fit(examples, settings.labels).save(run.folder / WORDS_FILE)
    files = [WORDS_FILE]
    if settings.kind == FITTED:
        data, repeats = own_training_set(records, settings.labels, settings.texts)
        per_label = max(1, settings.texts // len(settings.labels))
        how = replace(settings.fit, authored_repeats=repeats, comments_per_label=per_label)
        fit(pull(ENCODER), data, how).save(run.folder / FITTED_FILE)
        files.append(FITTED_FILE)
    facts = {"judge": run.judge.fingerprint, "lexicon": run.lexicon.fingerprint}
    write_json(run.folder / JUDGE, {"kind": settings.kind, "labels": settings.labels, **facts})
    return [JUDGE, *files]
