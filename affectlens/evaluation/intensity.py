"""Heard intensity: what doses do on tuning scenarios, and whether what is asked is heard on test.

The intensity of a reply is the probability that the blind judge gives the emotion; that of a dose
is its mean over replies. The replies come from the same generation and are scored by the same
function as those of any arm.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from affectlens.core import DataError
from affectlens.evaluation.dose_response import fit_dose_response
from affectlens.evaluation.naming import mask_feelings
from affectlens.evaluation.perplexity import ratio_of_replies
from affectlens.evaluation.reply import Reply

if TYPE_CHECKING:
    from affectlens.evaluation.judges import Judge
    from affectlens.evaluation.tuning import StrengthPoint
    from affectlens.steering.intensity import DoseResponse

ASKED: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
"""What the check on test scenarios asks for."""


@dataclass(frozen=True)
class DosePoint:
    """What one dose of one emotion does to replies.

    Attributes:
        emotion: The emotion.
        dose: In natural doses; 0 is no steering.
        heard: Mean probability that the judge gives the emotion.
        share: Share of replies in which it is the likeliest label.
        masked: As ``heard``, with every feeling word taken out of the reply.
        perplexity_ratio: To unsteered replies.
        replies: How many.
    """

    emotion: str
    dose: float
    heard: float
    share: float
    masked: float
    perplexity_ratio: float
    replies: int

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON and tables."""
        return asdict(self)


def heard_in(
    judge: Judge, texts: Sequence[str], emotions: Sequence[str]
) -> Float[np.ndarray, "text emotion"]:
    """The probability that a judge gives each emotion, in each text; nothing is heard in nothing.

    Args:
        judge: Blind; equal texts are judged once.
        texts: Replies, or what is left of them.
        emotions: Columns.
    """
    asked = list(dict.fromkeys(text for text in texts if text))
    found = np.zeros((len(texts), len(emotions)))
    if asked:
        verdicts = judge(asked)
        table = np.stack([verdicts.probability(e) for e in emotions], axis=1)
        row = {text: i for i, text in enumerate(asked)}
        for i, text in enumerate(texts):
            if text:
                found[i] = table[row[text]]
    return found


def dose_point(
    emotion: str, dose: float, replies: Sequence[Reply], unsteered: Sequence[Reply], judge: Judge
) -> DosePoint:
    """Measure the replies of one dose.

    Args:
        emotion: What they are to show.
        dose: In natural doses.
        replies: At that dose.
        unsteered: To the same events.
        judge: Blind.
    """
    texts = [reply.text for reply in replies]
    verdicts = judge(texts)
    masked = heard_in(judge, [mask_feelings(text) for text in texts], [emotion])
    return DosePoint(
        emotion=emotion,
        dose=dose,
        heard=float(verdicts.probability(emotion).mean()),
        share=float(np.mean([label == emotion for label in verdicts.chosen])),
        masked=float(masked.mean()),
        perplexity_ratio=ratio_of_replies(replies, unsteered),
        replies=len(replies),
    )


def heard_responses(
    points: Sequence[DosePoint], *, max_perplexity_ratio: float, masked: bool = False
) -> tuple[dict[str, DoseResponse], dict[str, str]]:
    """The dose-response of every emotion, up to the dose at which its text breaks.

    Args:
        points: Each dose of each emotion once, dose 0 among them.
        max_perplexity_ratio: From the first dose that costs more on, doses are left out.
        masked: Whether to hear replies without their feeling words.

    Returns:
        Emotion → response, and emotion → why it has none.
    """
    found: dict[str, DoseResponse] = {}
    silent: dict[str, str] = {}
    for emotion, curve in _by_emotion(points).items():
        kept: list[DosePoint] = []
        for point in curve:
            if point.dose and not point.perplexity_ratio <= max_perplexity_ratio:
                break
            kept.append(point)
        try:
            found[emotion] = fit_dose_response(
                [p.dose for p in kept],
                [p.masked if masked else p.heard for p in kept],
                [p.replies for p in kept],
            )
        except DataError as error:
            silent[emotion] = str(error)
    return found, silent


def _by_emotion(points: Sequence[DosePoint]) -> Mapping[str, list[DosePoint]]:
    curves: defaultdict[str, list[DosePoint]] = defaultdict(list)
    for point in sorted(points, key=lambda p: p.dose):
        curves[point.emotion].append(point)
    return curves


@dataclass(frozen=True)
class EmotionCheck:
    """Whether one emotion is heard as strongly as it is asked for.

    Attributes:
        emotion: The emotion.
        heard: Mean intensity at each intensity asked for.
        slope: Of the straight line of ``heard`` on asked; 1 is perfect.
        r2: Its share of variance.
        ordered: Share of events in which a stronger request is never heard less (by more than
            ``TIE``), over all neighbouring requests.
        pairs: Share of neighbouring requests of which the stronger is heard more.
        unsteered: Mean intensity without steering.
        highest: The most that was measured when the pack was calibrated; more cannot be expected.
    """

    emotion: str
    heard: Mapping[float, float]
    slope: float
    r2: float
    ordered: float
    pairs: float
    unsteered: float
    highest: float


TIE = 0.02
"""Intensities of one event that differ by less are equal: the judge is not finer than that."""


def check_emotion(
    emotion: str,
    heard: Mapping[float, Sequence[float]],
    unsteered: Sequence[float],
    highest: float,
) -> EmotionCheck:
    """Compare what is heard with what was asked.

    Args:
        emotion: The emotion.
        heard: Asked intensity → intensity heard in each event; the same events, in order.
        unsteered: The same without steering.
        highest: See `EmotionCheck`.

    Raises:
        DataError: If fewer than two intensities were asked for, or their events differ in number.
    """
    asked = sorted(heard)
    lengths = {len(heard[x]) for x in asked}
    if len(asked) < 2 or len(lengths) != 1 or not min(lengths):
        raise DataError("A check needs two or more intensities, each asked of the same events.")
    table = np.array([heard[x] for x in asked])
    means = table.mean(1)
    slope, _ = np.polyfit(asked, means, 1)
    correlation = 0.0 if np.ptp(means) == 0 else float(np.corrcoef(asked, means)[0, 1])
    steps = np.diff(table, axis=0)
    return EmotionCheck(
        emotion=emotion,
        heard=dict(zip(asked, means.tolist(), strict=True)),
        slope=float(slope),
        r2=correlation**2,
        ordered=float((steps > -TIE).all(0).mean()),
        pairs=float((steps > 0).mean()),
        unsteered=float(np.mean(unsteered)),
        highest=highest,
    )


def spread_at(checks: Sequence[EmotionCheck], asked: float) -> float:
    """Largest difference between emotions at one intensity asked for."""
    found = [check.heard[asked] for check in checks]
    return max(found) - min(found)


def tuned_responses(
    points: Sequence[StrengthPoint], arm: str, *, max_perplexity_ratio: float
) -> dict[str, DoseResponse]:
    """Dose-responses from the few strengths by which an arm was tuned, at no further cost.

    What is heard is here the share of replies in which the judge finds the emotion.

    Args:
        points: Of `affectlens.evaluation.strength_search.StrengthSearch`.
        arm: Whose.
        max_perplexity_ratio: As of `heard_responses`.

    Returns:
        Emotion → response; emotions that are heard no more at any dose are missing.
    """
    mine = [p for p in points if p.arm == arm and p.unsteered is not None]
    doses = [
        DosePoint(p.emotion, p.strength, p.accuracy, p.accuracy, 0.0, p.perplexity_ratio, 1)
        for p in mine
    ]
    none = {p.emotion: float(p.unsteered or 0) for p in mine}
    doses += [DosePoint(e, 0.0, share, share, 0.0, 1.0, 1) for e, share in none.items()]
    return heard_responses(doses, max_perplexity_ratio=max_perplexity_ratio)[0]
