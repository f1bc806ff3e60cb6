"""Arms of the steering comparison and what is measured on their replies.

All arms answer byte-identical neutral prompts with the same decoding; only the ``prompted`` arm has
a system prompt that asks for the emotion. The judge sees a reply and nothing else: neither the
target, nor the arm, nor the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from affectlens.core import EMOTIONS, DataError
from affectlens.core.errors import unknown
from affectlens.evaluation.metrics import (
    bootstrap_ci,
    capitals_rate,
    distinct_n,
    fluency_score,
    harmonic,
    mean_words,
    repetition_rate,
)
from affectlens.evaluation.scoring import perplexity_ratio

if TYPE_CHECKING:
    from affectlens.evaluation.judges import Judge

ARMS: tuple[str, ...] = ("unsteered", "prompted", "residual", "circuit", "random")

Embed = Callable[[Sequence[str]], Float[np.ndarray, "n d"]]


@dataclass(frozen=True)
class Reply:
    """One generated reply.

    Attributes:
        arm: One of :data:`ARMS` (or a name of the caller's).
        event: Id of the scenario-event answered.
        group: Its scenario: the unit of the bootstrap.
        valence: Of the event.
        emotion: The target, or "" in the unsteered arm (one reply serves all targets).
        prompt: The user's words.
        text: The reply.
        tokens: Number of generated tokens.
        nll: Mean nats per token under the unsteered model given the neutral prompt; NaN if empty.
    """

    arm: str
    event: str
    group: str
    valence: str
    emotion: str
    prompt: str
    text: str
    tokens: int
    nll: float

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON lines; an empty reply's NaN becomes null."""
        raw = asdict(self)
        raw["nll"] = None if np.isnan(self.nll) else round(self.nll, 5)
        return raw

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Reply:
        """Inverse of `to_dict`.

        Raises:
            DataError: If a field is missing or unknown.
        """
        try:
            fields: dict[str, Any] = dict(raw)
            fields["nll"] = float("nan") if raw["nll"] is None else float(raw["nll"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise DataError(f"A saved reply is damaged ({error}); evaluate again.") from error


@dataclass(frozen=True)
class ArmMetrics:
    """What `measure` says about an arm; every field but the intervals is a mean over replies.

    Attributes:
        accuracy: Share of replies in which the judge finds the target emotion.
        accuracy_ci: 95 % bootstrap interval over scenarios.
        per_emotion: Accuracy by target.
        lexicon_accuracy: The same by the second, unlike judge.
        found: Share of replies by verdict, all verdicts of the judge.
        perplexity_ratio: Of replies under the unsteered model, relative to unsteered replies.
        distinct2: Share of different word pairs within a reply.
        repetition: Share of repeated word triples within a reply.
        capitals: Share of words in capitals.
        words: Words per reply.
        topic: Cosine between sentence embeddings of prompt and reply.
        fluency: Score in [0, 1], see `fluency_score`.
        harmonic: Mean over replies of the harmonic mean of found (0 or 1), topic relative to the
            unsteered mean, and fluency (AxBench's score).
    """

    accuracy: float
    accuracy_ci: tuple[float, float]
    per_emotion: Mapping[str, float]
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
    n: int


def measure(
    replies: Sequence[Reply],
    unsteered: Sequence[Reply],
    *,
    judge: Judge,
    lexicon: Judge,
    embed: Embed,
    emotions: Sequence[str] = EMOTIONS,
    seed: int = 0,
) -> ArmMetrics:
    """Measure one arm.

    Args:
        replies: Of the arm. A reply without a target counts once for every emotion.
        unsteered: Replies of the unsteered arm to the same events: the reference for perplexity
            (pooled) and for the topic score.
        judge: Blind judge whose verdicts are the accuracy.
        lexicon: Second judge.
        embed: Sentence embeddings, unit rows.
        emotions: The targets.
        seed: Of the bootstrap.

    Raises:
        DataError: If there are no replies, or no unsteered ones to compare with.
        UnknownNameError: If a target is not one of ``emotions``.
    """
    if not replies or not unsteered:
        raise DataError("An arm needs replies, and unsteered replies to be compared with.")
    texts = [r.text for r in replies]
    verdicts, second = judge(texts), lexicon(texts)
    prompts = embed([r.prompt for r in replies])
    topic = np.sum(prompts * embed(texts), axis=1)
    topic_reference = float(
        np.mean(
            np.sum(embed([r.prompt for r in unsteered]) * embed([r.text for r in unsteered]), 1)
        )
    )
    base_nll = np.array([r.nll for r in unsteered])
    base_tokens = [r.tokens for r in unsteered]
    # Pooled over tokens, as in the perplexity ratio.
    weights = np.where(np.isnan(base_nll), 0, base_tokens)
    nll_reference = float((np.nan_to_num(base_nll) * weights).sum() / max(weights.sum(), 1))
    fluency = np.array(
        [0.0 if np.isnan(r.nll) else fluency_score(r.nll - nll_reference) for r in replies]
    )
    topic_score = np.clip(topic / max(topic_reference, 1e-6), 0, 1)

    rows: list[tuple[int, str]] = []  # (reply, target)
    for i, reply in enumerate(replies):
        if reply.emotion and reply.emotion not in emotions:
            raise unknown("emotion", reply.emotion, emotions)
        rows += [(i, e) for e in ([reply.emotion] if reply.emotion else emotions)]
    hit = np.array([verdicts.chosen[i] == e for i, e in rows], dtype=np.float64)
    second_hit = np.array([second.chosen[i] == e for i, e in rows], dtype=np.float64)
    target = np.array([e for _, e in rows])
    scores = [
        harmonic([float(h), float(topic_score[i]), float(fluency[i])])
        for h, (i, _) in zip(hit, rows, strict=True)
    ]
    return ArmMetrics(
        accuracy=float(hit.mean()),
        accuracy_ci=bootstrap_ci(hit, [replies[i].group for i, _ in rows], seed=seed),
        per_emotion={e: float(hit[target == e].mean()) for e in emotions if (target == e).any()},
        lexicon_accuracy=float(second_hit.mean()),
        found={
            label: float(np.mean([c == label for c in verdicts.chosen])) for label in judge.labels
        },
        perplexity_ratio=perplexity_ratio(
            np.array([r.nll for r in replies]), [r.tokens for r in replies], base_nll, base_tokens
        ),
        distinct2=distinct_n(texts, 2),
        repetition=repetition_rate(texts),
        capitals=capitals_rate(texts),
        words=mean_words(texts),
        topic=float(topic.mean()),
        fluency=float(fluency.mean()),
        harmonic=float(np.mean(scores)),
        n=len(replies),
    )
