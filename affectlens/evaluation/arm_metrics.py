"""What is measured on the replies of an arm, as means and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from affectlens.core import EMOTIONS
from affectlens.core.display import Displayed
from affectlens.core.statistics import bootstrap_interval
from affectlens.evaluation.judges.base import UNJUDGED
from affectlens.evaluation.reply_scores import Embed, Scores, known_mean, score_replies
from affectlens.evaluation.text_metrics import (
    capitals_rate,
    distinct_n,
    mean_words,
    repetition_rate,
)

if TYPE_CHECKING:
    from jaxtyping import Float

    from affectlens.evaluation.judges import Judge
    from affectlens.evaluation.reply import Reply

Interval = tuple[float, float]


@dataclass(frozen=True, repr=False)
class ArmMetrics(Displayed):
    """What `measure` says about an arm; intervals are 95 % bootstrap intervals over scenarios.

    Attributes:
        accuracy: Share of replies in which the judge finds the target emotion.
        masked_accuracy: The same with every entry of the feeling lexicon taken out of the reply
            before it is judged: what is expressed and not merely named.
        later_accuracy: The same without the first sentence; a reply of one sentence is a miss.
        copied_openers: Share of replies that begin with three words of an opener that the vectors
            were made from.
        per_emotion: Accuracy by target.
        masked_per_emotion: Masked accuracy by target.
        lexicon_accuracy: Accuracy by the second, unlike judge.
        found: Share of judged replies by verdict, all verdicts of the judge.
        perplexity_ratio: Of replies under the unsteered model, relative to unsteered replies.
        distinct2: Share of different word pairs within a reply.
        repetition: Share of repeated word triples within a reply.
        capitals: Share of words in capitals.
        words: Words per reply.
        topic: Cosine between sentence embeddings of prompt and reply.
        fluency: Score in [0, 1], see `fluency_score`.
        harmonic: Mean over replies of the harmonic mean of found (0 or 1), topic relative to the
            unsteered mean, and fluency (AxBench's score).
        masked_harmonic: The same with the masked hit.
        n: Number of replies.
        unjudged: Share of them without a verdict; they are left out, neither hit nor miss.
    """

    accuracy: float
    accuracy_ci: Interval
    masked_accuracy: float
    masked_accuracy_ci: Interval
    later_accuracy: float
    later_accuracy_ci: Interval
    copied_openers: float
    copied_openers_ci: Interval
    per_emotion: Mapping[str, float]
    masked_per_emotion: Mapping[str, float]
    lexicon_accuracy: float
    found: Mapping[str, float]
    perplexity_ratio: float
    distinct2: float
    repetition: float
    capitals: float
    words: float
    topic: float
    fluency: float
    harmonic: float
    harmonic_ci: Interval
    masked_harmonic: float
    masked_harmonic_ci: Interval
    n: int
    unjudged: float = 0.0

    def brief(self) -> Mapping[str, object]:
        """Replies, and the three numbers by which arms are compared first."""
        three = ("accuracy", "perplexity_ratio", "harmonic")
        return {"replies": self.n} | {name: f"{getattr(self, name):.3f}" for name in three}

    def table_rows(self) -> list[dict[str, object]]:
        """Accuracy by target."""
        return [
            {"emotion": e, "accuracy": share, "masked_accuracy": self.masked_per_emotion[e]}
            for e, share in self.per_emotion.items()
        ]


def summarise(scores: Scores, *, seed: int = 0) -> ArmMetrics:
    """Means over the rows of an arm's scores, with intervals over its scenarios.

    Args:
        scores: Of `score_replies`.
        seed: Of the bootstrap.
    """
    texts = [reply.text for reply in scores.replies]
    targets = np.array(scores.targets)
    said = [label for label in scores.chosen if label != UNJUDGED]

    def mean(values: Float[np.ndarray, " row"]) -> tuple[float, Interval]:
        known = np.flatnonzero(~np.isnan(values))
        if not len(known):
            return np.nan, (np.nan, np.nan)
        groups = [scores.groups[row] for row in known]
        low, high = bootstrap_interval(values[known], groups, random=seed).tolist()
        return float(values[known].mean()), (low, high)

    def by_target(values: Float[np.ndarray, " row"]) -> dict[str, float]:
        return {e: known_mean(values[targets == e]) for e in dict.fromkeys(scores.targets)}

    accuracy, accuracy_ci = mean(scores.hit)
    masked, masked_ci = mean(scores.masked)
    later, later_ci = mean(scores.later)
    copied, copied_ci = mean(scores.copied)
    harmonic, harmonic_ci = mean(scores.harmonic)
    masked_harmonic, masked_harmonic_ci = mean(scores.masked_harmonic)
    return ArmMetrics(
        accuracy=accuracy,
        accuracy_ci=accuracy_ci,
        masked_accuracy=masked,
        masked_accuracy_ci=masked_ci,
        later_accuracy=later,
        later_accuracy_ci=later_ci,
        copied_openers=copied,
        copied_openers_ci=copied_ci,
        per_emotion=by_target(scores.hit),
        masked_per_emotion=by_target(scores.masked),
        lexicon_accuracy=float(scores.lexicon.mean()),
        found={label: said.count(label) / max(1, len(said)) for label in scores.labels},
        unjudged=1 - len(said) / len(scores.chosen),
        perplexity_ratio=scores.perplexity_ratio,
        distinct2=distinct_n(texts, 2),
        repetition=repetition_rate(texts),
        capitals=capitals_rate(texts),
        words=mean_words(texts),
        topic=float(scores.cosine.mean()),
        fluency=float(scores.fluency.mean()),
        harmonic=harmonic,
        harmonic_ci=harmonic_ci,
        masked_harmonic=masked_harmonic,
        masked_harmonic_ci=masked_harmonic_ci,
        n=len(texts),
    )


def measure(
    replies: Sequence[Reply],
    unsteered: Sequence[Reply],
    *,
    judge: Judge,
    lexicon: Judge,
    embed: Embed,
    emotions: Sequence[str] = EMOTIONS,
    openers: Sequence[str] = (),
    seed: int = 0,
) -> ArmMetrics:
    """Measure one arm: `score_replies`, whose arguments and errors these are, then `summarise`."""
    scores = score_replies(
        replies,
        unsteered,
        judge=judge,
        lexicon=lexicon,
        embed=embed,
        emotions=emotions,
        openers=openers,
    )
    return summarise(scores, seed=seed)
