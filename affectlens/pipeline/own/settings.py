"""The settings of a run on a user's own texts: the same, for their labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from affectlens.pipeline.rules import RefineMix

if TYPE_CHECKING:
    from affectlens.pipeline.own.choice import OwnCorpus
    from affectlens.pipeline.own.texts import OwnTexts
    from affectlens.pipeline.settings import Settings
    from affectlens.steering.refine import RefineSettings

REPLIES_PER_STEP = 24
"""Replies that a step of the descent sees, whatever the number of labels: as with our six."""


def on_own_texts(settings: Settings, asked: OwnCorpus, own: OwnTexts) -> Settings:
    """Put the labels of a corpus in the place of ours.

    Args:
        settings: As they would be for our corpora.
        asked: What the user asked.
        own: Their texts.
    """
    emotions = own.emotions
    mix = RefineMix(("own", "tones") if own.openers else ("tones",))

    def alike(refine: RefineSettings) -> RefineSettings:
        return replace(refine, groups_per_step=max(1, round(REPLIES_PER_STEP / len(emotions))))

    s = settings
    folds = min(s.probe.folds, len(own.replies.scenarios()))
    return replace(
        s,
        fit_judge=replace(
            s.fit_judge,
            kind=asked.judge_kind,
            labels=own.labels,
            fit=replace(s.fit_judge.fit, seed=s.judge.seed),
        ),
        express=replace(s.express, emotions=emotions),
        probe=replace(s.probe, classes=own.labels, folds=folds),
        directions=replace(
            s.directions, emotions=emotions, mix=mix, refine=alike(s.directions.refine)
        ),
        circuit=replace(s.circuit, mix=mix, refine=alike(s.circuit.refine)),
        evidence=s.evidence if own.evidence else replace(s.evidence, parts=()),
        controls=replace(s.controls, mix=mix, refine=alike(s.controls.refine)),
        tune=replace(s.tune, emotions=emotions),
        evaluate=replace(s.evaluate, emotions=emotions, ask=asked.ask),
        judge=replace(s.judge, corpora=("replies",)),
        report=replace(
            s.report,
            emotions=emotions,
            corpus=own.name,
            corpus_title=f"{own.name} ({', '.join(own.labels)})",
            notices=own.notices,
        ),
    )
