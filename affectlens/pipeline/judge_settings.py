"""How the judges of a run are fitted and examined."""

from __future__ import annotations

from dataclasses import dataclass, field

from affectlens.evaluation.judges.training_data import FitSettings


@dataclass(frozen=True)
class FitJudgeSettings:
    """How judges of a user's own labels are fitted.

    Attributes:
        kind: ``"shipped"``, or one of those of `affectlens.pipeline.own.choice`.
        labels: Of the run; none with the shipped judges, which are not fitted.
        roles: Of the groups that are learned from; they give no directions.
        texts: About so many an epoch.
        fit: Of the encoder; the repeats follow from the number of texts.
    """

    kind: str = "shipped"
    labels: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("judge", "tune")
    texts: int = 2000
    fit: FitSettings = field(
        default_factory=lambda: FitSettings(
            epochs=3, garbled=300, long_texts=64, masked=0.0, precision="float32"
        )
    )


@dataclass(frozen=True)
class JudgeSettings:
    """How the judges are examined.

    Attributes:
        corpora: Their test split is read.
        garbled: Corrupted texts, all kinds alike.
        seed: Of the corruptions.
    """

    corpora: tuple[str, ...] = ("replies", "tones")
    garbled: int = 400
    seed: int = 0
