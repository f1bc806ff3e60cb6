"""How far a judge can be trusted: accuracy on unseen texts, confusions, refusals, agreement."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from affectlens.core import EMOTIONS, NEUTRAL, TONES, DataError
from affectlens.evaluation.judges.base import GARBLED, UNJUDGED, Judge
from affectlens.evaluation.judges.corruptions import HELD_OUT, TRAINED
from affectlens.evaluation.judges.garbling import garble
from affectlens.evaluation.naming import mask_feelings

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus, Record


def confusion(
    truth: Sequence[str], chosen: Sequence[str], rows: Sequence[str], columns: Sequence[str]
) -> Int[np.ndarray, "rows columns"]:
    """Count how often each true label (row) was called each label (column)."""
    from sklearn.metrics import confusion_matrix

    labels = list(dict.fromkeys([*rows, *columns]))
    counts = confusion_matrix(truth, chosen, labels=labels)
    return counts[np.ix_([labels.index(r) for r in rows], [labels.index(c) for c in columns])]


def judge_report(judge: Judge, corpora: Mapping[str, Corpus]) -> dict[str, Any]:
    """Accuracy and confusions of a judge on labelled corpora it has not seen.

    Args:
        judge: Any judge.
        corpora: Name -> records with a label each; pass unseen ones only.

    Returns:
        JSON-able: ``judge``, ``prior`` (one over the number of labels it may choose) and
        ``corpora``; per corpus ``n`` (texts with a verdict), ``unjudged`` (share without),
        ``accuracy``, ``chance`` (what its own verdicts would score
        if dealt to the texts at random), ``called_garbled`` (share, should be near 0), ``recall``
        and ``precision`` per label of the corpus, ``accuracy_by_theme``, ``labels`` and
        ``confusion`` (rows: truth, columns: ``labels``). Of a judge of our tones also ``as_arm``:
        what the emotional texts would score as an arm of steering, in ``accuracy`` and
        ``masked_accuracy``.

    Raises:
        DataError: If a corpus has records without a label, or with one that the judge lacks.
    """
    found: dict[str, Any] = {}
    for name, corpus in corpora.items():
        truth = [record.emotion for record in corpus]
        if None in truth:
            raise DataError(
                f"Corpus {name} has records without one of {', '.join(corpus.label_set)}; filter "
                "them out."
            )
        tones = [str(label) for label in truth]
        if lacking := [label for label in dict.fromkeys(tones) if label not in judge.labels]:
            raise DataError(
                f"The judge {judge.name} knows no {', '.join(lacking)}, which texts of corpus "
                f"{name} have; it knows {', '.join(judge.labels)}."
            )
        ours = judge.labels[: len(TONES)] == TONES
        known = TONES if ours else corpus.label_set
        texts = [record.text for record in corpus]
        chosen = judge(texts).chosen
        told = [i for i, said in enumerate(chosen) if said != UNJUDGED]
        truth, said = [tones[i] for i in told], [chosen[i] for i in told]
        found[name] = _scores(truth, said, known, judge.labels) | {
            "unjudged": 1 - len(told) / len(tones),
            "accuracy_by_theme": _by_theme([corpus.records[i] for i in told], said),
        }
        if ours and any(tone in EMOTIONS for tone in tones):
            found[name]["as_arm"] = _as_arm(judge, texts, tones, chosen)
    return {"judge": judge.name, "prior": 1 / len(judge.labels), "corpora": found}


def _as_arm(
    judge: Judge, texts: Sequence[str], tones: Sequence[str], chosen: Sequence[str]
) -> dict[str, float]:
    """What people's texts score where the replies of a model do: the most to be hoped for."""
    rows = [i for i, tone in enumerate(tones) if tone in EMOTIONS]
    masked = [mask_feelings(texts[i]) for i in rows]
    left = [text for text in masked if text]
    heard = iter(judge(left).chosen if left else ())
    found = {
        "accuracy": [chosen[i] for i in rows],
        "masked_accuracy": [next(heard) if text else NEUTRAL for text in masked],
    }
    shares: dict[str, float] = {}
    for name, said in found.items():
        hits = [one == tones[i] for i, one in zip(rows, said, strict=True) if one != UNJUDGED]
        shares[name] = sum(hits) / len(hits) if hits else math.nan
    return shares


def permutation_chance(truth: Sequence[str], chosen: Sequence[str]) -> float:
    """Expected accuracy of a judge's verdicts when they are dealt to the texts at random.

    The mean over all permutations, exactly: the sum over labels of the share of texts that have it
    times the share of verdicts that say it.
    """
    if not truth:
        return 0.0
    true, said = Counter(truth), Counter(chosen)
    return sum(true[label] * said[label] for label in true) / len(truth) ** 2


def _scores(
    truth: Sequence[str], chosen: Sequence[str], tones: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    from sklearn.metrics import accuracy_score, precision_score, recall_score

    counts = confusion(truth, chosen, tones, labels)
    ours: dict[str, Any] = {"labels": list(tones), "average": None, "zero_division": 0}
    precision = np.asarray(precision_score(truth, chosen, **ours))
    recall = np.asarray(recall_score(truth, chosen, **ours))
    return {
        "n": len(truth),
        "accuracy": float(accuracy_score(truth, chosen)),
        "chance": permutation_chance(truth, chosen),
        "called_garbled": sum(c == GARBLED for c in chosen) / max(1, len(truth)),
        "recall": dict(zip(tones, recall.tolist(), strict=True)),
        "precision": dict(zip(tones, precision.tolist(), strict=True)),
        "labels": list(labels),
        "confusion": counts.tolist(),
    }


def _by_theme(records: Sequence[Record], chosen: Sequence[str]) -> dict[str, float]:
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for record, said in zip(records, chosen, strict=True):
        hits[record.theme].append(said == record.emotion)
    return {theme: sum(right) / len(right) for theme, right in hits.items()}


def refusal_report(
    judge: Judge, texts: Sequence[str], *, n: int, seed: int, pieces: Sequence[str]
) -> dict[str, Any]:
    """Share of corrupted texts in which a judge still finds an emotion (should be near 0).

    Kinds that judges were trained on and kinds that they never met are reported apart: the first
    show memory, the second what a new way of breaking down would do.

    Args:
        judge: Any judge.
        texts: Good texts that the judge has not seen, to be corrupted.
        n: How many corrupted texts to make, half of them of each sort, all kinds of a sort alike.
        seed: Of the corruptions.
        pieces: Vocabulary for random text.

    Returns:
        ``trained`` and ``held_out``: per sort ``n``, ``emotion_found``, ``called_garbled`` and
        ``by_kind``; and ``emotion_found``, that of the held-out kinds.
    """
    sorts = {
        name: _refusals(judge, texts, {"n": n // 2, "seed": seed, "pieces": pieces}, tuple(kinds))
        for name, kinds in (("trained", TRAINED), ("held_out", HELD_OUT))
    }
    return {"emotion_found": sorts["held_out"]["emotion_found"], **sorts}


def _refusals(
    judge: Judge, texts: Sequence[str], how: Mapping[str, Any], kinds: Sequence[str]
) -> dict[str, Any]:
    made = garble(texts, kinds=kinds, **how)
    chosen = judge([g.text for g in made]).chosen
    found: defaultdict[str, list[bool]] = defaultdict(list)
    for corrupted, said in zip(made, chosen, strict=True):
        if said != UNJUDGED:
            found[corrupted.kind].append(said not in (NEUTRAL, GARBLED))
    every = [said for kind in found.values() for said in kind]
    return {
        "n": len(every),
        "emotion_found": sum(every) / max(1, len(every)),
        "called_garbled": sum(said == GARBLED for said in chosen) / max(1, len(every)),
        "by_kind": {kind: sum(values) / len(values) for kind, values in found.items()},
    }


def long_text_report(
    judge: Judge, corpus: Corpus, *, n: int = 40, words: Sequence[int] = (100, 400)
) -> dict[str, float]:
    """Share of emotional texts that a judge still finds behind so many words of plain text.

    Args:
        judge: Any judge.
        corpus: Unseen records, neutral ones among them; a text's own group is not put before it.
        n: Most texts to read, taken evenly.
        words: Least numbers of plain words in front.

    Returns:
        Number of words -> accuracy over the emotional records; the judge's verdict has to be
        theirs.
    """
    told = [record for record in corpus if record.emotion in EMOTIONS]
    told = told[:: max(1, len(told) // n)][:n]
    plain = [record for record in corpus if record.emotion == NEUTRAL]
    out: dict[str, float] = {}
    for least in words:
        texts: list[str] = []
        for index, record in enumerate(told):
            parts: list[str] = []
            others = [p.text for p in plain if p.group != record.group]
            while sum(len(part.split()) for part in parts) < least:
                parts.append(others[(index + len(parts)) % len(others)])
            texts.append(" ".join([*parts, record.text]))
        chosen = judge(texts).chosen
        right = [said == record.emotion for said, record in zip(chosen, told, strict=True)]
        out[str(least)] = sum(right) / max(1, len(right))
    return out


def agreement(judges: Sequence[Judge], texts: Sequence[str]) -> dict[str, Any]:
    """How often each pair of judges says the same, beyond chance as Cohen's kappa.

    Texts on which one of them gave no verdict are left out.

    Returns:
        ``"first/second"`` -> ``{"agree": share, "kappa": kappa}``.
    """
    from sklearn.metrics import accuracy_score, cohen_kappa_score

    said = {judge.name: judge(texts).chosen for judge in judges}
    names = list(said)
    out: dict[str, Any] = {}
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            pairs = zip(said[first], said[second], strict=True)
            both = [pair for pair in pairs if UNJUDGED not in pair]
            a, b = [pair[0] for pair in both], [pair[1] for pair in both]
            # Of judges that both say one label throughout, kappa is 0 / 0.
            kappa = float(cohen_kappa_score(a, b)) if len({*a, *b}) > 1 else 1.0
            share = float(accuracy_score(a, b)) if both else math.nan
            out[f"{first}/{second}"] = {"agree": share, "kappa": kappa if both else math.nan}
    return out
