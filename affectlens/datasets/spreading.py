"""A few records of a corpus that stand for all of it."""

from __future__ import annotations

from dataclasses import replace

from affectlens.datasets.schema import Corpus, Record


def some_scenarios(corpus: Corpus, n: int) -> Corpus:
    """At most ``n`` scenarios of each split with all their records, spread over the corpus."""
    kept = set[tuple[str | None, str]]()
    for split in dict.fromkeys(record.split for record in corpus):
        names = list(dict.fromkeys(r.scenario for r in corpus if r.split == split))
        count = min(n, len(names))
        kept |= {(split, names[i * len(names) // count]) for i in range(count)}
    records = tuple(r for r in corpus if (r.split, r.scenario) in kept)
    return replace(corpus, records=records)


def spread(corpus: Corpus, n: int) -> list[Record]:
    """At most ``n`` records, spread over the scenarios in turn and over the valences.

    The i-th scenario gives its event number ``i mod 3`` first, so that a small ``n`` still sees
    every valence and as many scenarios as it can.
    """
    by_scenario: dict[str, list[Record]] = {}
    for record in corpus:
        by_scenario.setdefault(record.scenario, []).append(record)
    scenarios = list(by_scenario.values())
    if n < len(scenarios):
        # Evenly over the themes, which follow one another in the corpora.
        scenarios = [scenarios[i * len(scenarios) // n] for i in range(n)]
    rounds: list[Record] = []
    for turn in range(max(len(members) for members in scenarios)):
        for i, members in enumerate(scenarios):
            if turn < len(members):
                rounds.append(members[(i + turn) % len(members)])
    return rounds[:n]
