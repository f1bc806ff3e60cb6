"""Near-duplicates: texts that share most of their words, or of their neighbouring characters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import ceil

from affectlens.datasets.scripts import shingles

_SLACK = 1e-9  # so that a product such as 0.6 · 5 is not rounded up past its whole number


def near_duplicates(texts: Sequence[str], similarity: float) -> list[tuple[int, int]]:
    """Pairs of texts whose `shingles` have a Jaccard index of at least ``similarity`` (> 0).

    Exact, without comparing all pairs (the prefix filter of Bayardo et al., 2007, "Scaling up all
    pairs similarity search", and Xiao et al., 2008): taking sets from small to large, with words
    sorted from rare to common, a set ``s`` can only match a smaller one if its first
    ``|s| − ⌈t·|s|⌉ + 1`` words meet the other's first ``|s'| − ⌈2t/(1+t)·|s'|⌉ + 1``, and only if
    ``|s'| ≥ t·|s|``.

    Returns:
        Index pairs ``i < j``, sorted. Texts without words match nothing.
    """
    sets = [shingles(text) for text in texts]
    frequency = Counter(word for words in sets for word in words)
    index: defaultdict[str, list[int]] = defaultdict(list)
    pairs: list[tuple[int, int]] = []
    for j in sorted(range(len(sets)), key=lambda k: len(sets[k])):
        words = sets[j]
        ordered = sorted(words, key=lambda word: (frequency[word], word))
        smallest = similarity * len(words) - _SLACK
        probe = len(words) - ceil(smallest) + 1
        candidates = {
            i for word in ordered[:probe] for i in index[word] if len(sets[i]) >= smallest
        }
        for i in candidates:
            if len(words & sets[i]) >= similarity * len(words | sets[i]) - _SLACK:
                pairs.append((min(i, j), max(i, j)))
        keep = len(words) - ceil(2 * similarity / (1 + similarity) * len(words) - _SLACK) + 1
        for word in ordered[:keep]:
            index[word].append(j)
    return sorted(pairs)
