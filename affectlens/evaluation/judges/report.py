"""How far a judge can be trusted: accuracy on unseen texts, confusions, refusals, agreement."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from affectlens.core import EMOTIONS, TONES, DataError
from affectlens.evaluation.judges.base import GARBLED, Judge
from affectlens.evaluation.judges.garble import garble

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus


def confusion(
    truth: Sequence[str], chosen: Sequence[str], rows: Sequence[str], columns: Sequence[str]
) -> Int[np.ndarray, "rows columns"]:
    """Count how often each true label (row) was called each label (column)."""
    counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for true, said in zip(truth, chosen, strict=True):
        counts[rows.index(true), columns.index(said)] += 1
    return counts


def judge_report(judge: Judge, corpora: Mapping[str, Corpus]) -> dict[str, Any]:
    """Accuracy and confusions of a judge on labelled corpora it has not seen.

    Args:
        judge: Any judge.
        corpora: Name -> records with one of the seven tones each; pass unseen ones only.

    Returns:
        JSON-able: ``judge``, ``chance`` and ``corpora``; per corpus ``n``, ``accuracy``,
        ``called_garbled`` (share, should be near 0), ``recall`` and ``precision`` per tone,
        ``accuracy_by_theme``, ``labels`` and ``confusion`` (rows: truth, columns: ``labels``).

    Raises:
        DataError: If a corpus has records without one of the seven tones.
    """
    found: dict[str, Any] = {}
    for name, corpus in corpora.items():
        truth = [record.emotion for record in corpus]
        if any(label not in TONES for label in truth):
            raise DataError(
                f"Corpus {name} has records without one of {', '.join(TONES)}; filter them out."
            )
        verdicts = judge([record.text for record in corpus])
        tones = [str(label) for label in truth]
        found[name] = _scores(tones, verdicts.chosen, judge.labels) | {
            "accuracy_by_theme": _by_theme(corpus, verdicts.chosen)
        }
    return {"judge": judge.name, "chance": 1 / len(TONES), "corpora": found}


def _scores(truth: Sequence[str], chosen: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    counts = confusion(truth, chosen, TONES, labels)
    right = np.array([counts[TONES.index(t), labels.index(t)] for t in TONES])
    said = {tone: int(counts[:, labels.index(tone)].sum()) for tone in TONES}
    true = counts.sum(1)
    return {
        "n": len(truth),
        "accuracy": float(right.sum() / max(1, len(truth))),
        "called_garbled": sum(c == GARBLED for c in chosen) / max(1, len(truth)),
        "recall": {t: float(r / max(1, n)) for t, r, n in zip(TONES, right, true, strict=True)},
        "precision": {t: float(r / max(1, said[t])) for t, r in zip(TONES, right, strict=True)},
        "labels": list(labels),
        "confusion": counts.tolist(),
    }


def _by_theme(corpus: Corpus, chosen: Sequence[str]) -> dict[str, float]:
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for record, said in zip(corpus, chosen, strict=True):
        hits[record.theme].append(said == record.emotion)
    return {theme: sum(right) / len(right) for theme, right in hits.items()}


def refusal_report(
    judge: Judge, texts: Sequence[str], *, n: int, seed: int, pieces: Sequence[str]
) -> dict[str, Any]:
    """Share of corrupted texts in which a judge still finds an emotion (should be near 0).

    Args:
        judge: Any judge.
        texts: Good texts that the judge has not seen, to be corrupted.
        n: How many corrupted texts to make, all kinds alike.
        seed: Of the corruptions.
        pieces: Vocabulary for random text.

    Returns:
        ``emotion_found`` over all, and ``by_kind``.
    """
    made = garble(texts, n, seed=seed, pieces=pieces)
    chosen = judge([g.text for g in made]).chosen
    found: defaultdict[str, list[bool]] = defaultdict(list)
    for corrupted, said in zip(made, chosen, strict=True):
        found[corrupted.kind].append(said in EMOTIONS)
    every = [said for kind in found.values() for said in kind]
    return {
        "n": len(every),
        "emotion_found": sum(every) / max(1, len(every)),
        "by_kind": {kind: sum(values) / len(values) for kind, values in found.items()},
    }


def agreement(judges: Sequence[Judge], texts: Sequence[str]) -> dict[str, Any]:
    """How often each pair of judges says the same, beyond chance as Cohen's kappa.

    Returns:
        ``"first/second"`` -> ``{"agree": share, "kappa": kappa}``.
    """
    said = {judge.name: judge(texts).chosen for judge in judges}
    names = list(said)
    out: dict[str, Any] = {}
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            a, b = said[first], said[second]
            labels = sorted({*a, *b})
            counts = confusion(a, b, labels, labels) / max(1, len(a))
            agree = float(np.trace(counts))
            chance = float(counts.sum(1) @ counts.sum(0))
            kappa = (agree - chance) / (1 - chance) if chance < 1 else 1.0
            out[f"{first}/{second}"] = {"agree": agree, "kappa": kappa}
    return out
