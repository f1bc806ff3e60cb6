"""What each reply of an arm scores for each of its targets.

The judge sees a reply and nothing else: neither the target, nor the arm, nor the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from affectlens.core import EMOTIONS, DataError
from affectlens.core.errors import unknown
from affectlens.evaluation.judges.base import UNJUDGED
from affectlens.evaluation.naming import copies_opener, mask_feelings, without_first_sentence
from affectlens.evaluation.perplexity import perplexity_ratio, pooled_nll
from affectlens.evaluation.text_metrics import fluency_score, harmonic

if TYPE_CHECKING:
    from affectlens.evaluation.judges import Judge
    from affectlens.evaluation.reply import Reply

Embed = Callable[[Sequence[str]], Float[np.ndarray, "n d"]]


@dataclass(frozen=True, eq=False)
class Scores:
    """What each reply scores for each of its targets: one row per reply and target.

    A reply without a target (unsteered) has a row for every emotion.

    Attributes:
        replies: What was scored.
        which: Index into ``replies`` of each row.
        labels: Every label that the judge may choose.
        chosen: Its verdict on each reply.
        cosine: Between sentence embeddings of prompt and reply, of each reply.
        perplexity_ratio: Of all replies together, to unsteered ones.
        events: Id of the scenario-event.
        groups: Its scenario.
        targets: The emotion asked for.
        hit: 1 if the judge finds the target; NaN, here and below, where it gave no verdict.
        masked: 1 if it does with every feeling word taken out (`mask_feelings`); 0 if nothing is
            left.
        later: 1 if it does without the first sentence; 0 for a reply of one sentence, of which
            nothing is left.
        copied: 1 if the reply begins like an opener (`copies_opener`).
        lexicon: 1 if the word judge finds the target.
        topic: In [0, 1], relative to unsteered replies.
        fluency: In [0, 1], see `fluency_score`.
    """

    replies: tuple[Reply, ...]
    which: Int[np.ndarray, " row"]
    labels: tuple[str, ...]
    chosen: tuple[str, ...]
    cosine: Float[np.ndarray, " reply"]
    perplexity_ratio: float
    events: tuple[str, ...]
    groups: tuple[str, ...]
    targets: tuple[str, ...]
    hit: Float[np.ndarray, " row"]
    masked: Float[np.ndarray, " row"]
    later: Float[np.ndarray, " row"]
    copied: Float[np.ndarray, " row"]
    lexicon: Float[np.ndarray, " row"]
    topic: Float[np.ndarray, " row"]
    fluency: Float[np.ndarray, " row"]

    @property
    def harmonic(self) -> Float[np.ndarray, " row"]:
        """Harmonic mean of hit, topic and fluency."""
        return _harmonic(self.hit, self.topic, self.fluency)

    @property
    def masked_harmonic(self) -> Float[np.ndarray, " row"]:
        """Harmonic mean of masked hit, topic and fluency."""
        return _harmonic(self.masked, self.topic, self.fluency)


def score_replies(
    replies: Sequence[Reply],
    unsteered: Sequence[Reply],
    *,
    judge: Judge,
    lexicon: Judge,
    embed: Embed,
    emotions: Sequence[str] = EMOTIONS,
    openers: Sequence[str] = (),
    naming: bool = True,
) -> Scores:
    """Judge the replies of one arm.

    Args:
        replies: Of the arm. A reply without a target counts once for every emotion.
        unsteered: Replies of the unsteered arm to the same events: the reference for perplexity
            (pooled) and for the topic score.
        judge: Blind judge whose verdicts are the accuracy.
        lexicon: Second judge.
        embed: Sentence embeddings, unit rows.
        emotions: The targets.
        openers: First sentences that the vectors were made from.
        naming: Judge also what is left of replies; without it ``masked`` and ``later`` are NaN.

    Raises:
        DataError: If there are no replies, or no unsteered ones to compare with.
        UnknownNameError: If a target is not one of ``emotions``.
    """
    if not replies or not unsteered:
        raise DataError("An arm needs replies, and unsteered replies to be compared with.")
    rows: list[tuple[int, str]] = []  # (reply, target)
    for i, reply in enumerate(replies):
        if reply.emotion and reply.emotion not in emotions:
            raise unknown("emotion", reply.emotion, emotions)
        rows += [(i, e) for e in ([reply.emotion] if reply.emotion else emotions)]
    which = np.array([i for i, _ in rows])
    texts = [r.text for r in replies]
    versions = (mask_feelings, without_first_sentence) if naming else ()
    whole, *parts = _verdicts(judge, texts, *([cut(t) for t in texts] for cut in versions))

    def hits(chosen: Sequence[str]) -> Float[np.ndarray, " row"]:
        said = [np.nan if chosen[i] == UNJUDGED else chosen[i] == e for i, e in rows]
        return np.array(said, dtype=np.float64)

    nll, tokens = np.array([r.nll for r in replies]), [r.tokens for r in replies]
    base_nll, base_tokens = np.array([r.nll for r in unsteered]), [r.tokens for r in unsteered]
    # Unsteered text as a whole is the reference: pooled over tokens, as in the ratio.
    reference = pooled_nll(base_nll, base_tokens)
    fluency = np.array([0.0 if np.isnan(x) else fluency_score(x - reference) for x in nll])
    cosine = _cosine(replies, embed)
    kept = max(float(_cosine(unsteered, embed).mean()), 1e-6)
    copied = np.array([copies_opener(text, openers) for text in texts], dtype=np.float64)
    return Scores(
        replies=tuple(replies),
        which=which,
        labels=tuple(judge.labels),
        chosen=tuple(whole),
        cosine=cosine,
        perplexity_ratio=perplexity_ratio(nll, tokens, base_nll, base_tokens),
        events=tuple(replies[i].event for i in which),
        groups=tuple(replies[i].group for i in which),
        targets=tuple(e for _, e in rows),
        hit=hits(whole),
        masked=hits(parts[0]) if naming else np.full(len(rows), np.nan),
        later=hits(parts[1]) if naming else np.full(len(rows), np.nan),
        copied=copied[which],
        lexicon=hits(lexicon(texts).chosen),
        topic=np.clip(cosine / kept, 0, 1)[which],
        fluency=fluency[which],
    )


def _verdicts(judge: Judge, whole: Sequence[str], *parts: Sequence[str]) -> list[list[str]]:
    """The judge's label of every text, first of whole replies, then of what is left of them.

    A reply is judged as it is, empty or not; where nothing is left of it, the label is "". Texts
    that are equal are judged once.
    """
    asked = list(dict.fromkeys([*whole, *(text for part in parts for text in part if text)]))
    known = dict(zip(asked, judge(asked).chosen, strict=True))
    return [[known[t] for t in whole], *([known[t] if t else "" for t in part] for part in parts)]


def known_mean(values: Float[np.ndarray, " row"]) -> float:
    """Of the rows that the judge gave a verdict on; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _cosine(replies: Sequence[Reply], embed: Embed) -> Float[np.ndarray, " reply"]:
    return np.sum(embed([r.prompt for r in replies]) * embed([r.text for r in replies]), axis=1)


def _harmonic(*parts: Float[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    rows = [[float(p) for p in row] for row in zip(*parts, strict=True)]
    return np.array([np.nan if np.isnan(row).any() else harmonic(row) for row in rows])
