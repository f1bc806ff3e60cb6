"""Leakage: what a classifier could tell emotions apart by without reading the emotion.

A direction fitted on texts that shout becomes a direction of shouting, so a corpus is checked
before it is used.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, sqrt

from affectlens.core.emotions import NEUTRAL
from affectlens.core.groups import group_name
from affectlens.datasets.leakage.affect_words import affect_words
from affectlens.datasets.leakage.duplicates import near_duplicates
from affectlens.datasets.leakage.findings import (
    Finding,
    LeakageLimits,
    LeakageReport,
    count,
    some,
    verb,
)
from affectlens.datasets.schema import Corpus, Record, incomplete_groups
from affectlens.datasets.scripts import n_words, normalised
from affectlens.datasets.tables.oddities import reading_findings

_CAPITALS = re.compile(r"\b[A-Z]{3,}\b")
_MIN_TEXTS = 5
_PUNCTUATION = re.compile(r"[^\w\s]")


@dataclass(frozen=True)
class _Statistic:
    """A number per text whose mean must not depend on the emotion."""

    kind: str
    what: str
    measure: Callable[[str], float]
    relative: bool

    def limit(self, limits: LeakageLimits, overall: float) -> float:
        if self.kind == "length":
            return limits.length * overall
        return limits.punctuation * overall if self.relative else limits.share


def _exclaims(text: str) -> bool:
    return "!" in normalised(text)


def _asks(text: str) -> bool:
    return any(mark in normalised(text) for mark in ("?", "\u061f"))


_STATISTICS = (
    _Statistic("capitals", "share of texts in CAPS", lambda t: bool(_CAPITALS.search(t)), False),
    _Statistic("exclamation_marks", "share of texts with '!'", _exclaims, False),
    _Statistic("question_marks", "share of texts with '?'", _asks, False),
    _Statistic("length", "words per text", n_words, True),
    _Statistic(
        "punctuation",
        "punctuation marks per word",
        lambda t: len(_PUNCTUATION.findall(t)) / max(1, n_words(t)),
        True,
    ),
)  # fmt: skip


def check_leakage(corpus: Corpus, limits: LeakageLimits | None = None) -> LeakageReport:
    """Look for what gives an emotion away besides the emotion.

    Args:
        corpus: Of any design. *Content* is what the user says (designs with a chat), the *labelled
            text* is the reply or the plain text; the elicited design has no labelled text.
        limits: What to tolerate.

    Returns:
        A report; an empty list of findings means nothing was found.
    """
    limits = limits or LeakageLimits()
    labelled = [r for r in corpus if r.emotion and r.messages[-1].role in ("assistant", "text")]
    statistics, imbalances = _imbalances(labelled, limits)
    findings = [
        *reading_findings(corpus, limits),
        *_affect_in_content(corpus, limits),
        *_affect_in_neutral(labelled, limits),
        *imbalances,
        *_near_duplicates(corpus, labelled, limits),
        *_incomplete(corpus, limits),
        *_unequal_prompts(corpus, limits),
        *_split_overlap(corpus, limits),
    ]
    return LeakageReport(corpus.name, corpus.fingerprint, tuple(findings), statistics)


def _contents(corpus: Corpus) -> dict[str, tuple[str, str]]:
    """``group -> (scenario, content)``: what the user says, once per group."""
    contents: dict[str, tuple[str, str]] = {}
    for record in corpus:
        said = " ".join(m.content for m in record.messages if m.role == "user")
        if said:
            contents.setdefault(group_name(record.group_key), (record.scenario, said))
    return contents


def _affect_in_content(corpus: Corpus, limits: LeakageLimits) -> Iterator[Finding]:
    hits = {
        group: words
        for group, (_, content) in _contents(corpus).items()
        if (words := affect_words(content))
    }
    if hits:
        named = sorted({word.lower() for words in hits.values() for word in words})
        yield Finding(
            "affect_words",
            f"{count(hits, 'event')} by the user {verb(hits, 'names', 'name')} a feeling "
            f"({', '.join(named[: limits.examples])}): {some(hits, limits)}.",
            tuple(hits),
        )


def _affect_in_neutral(labelled: Sequence[Record], limits: LeakageLimits) -> Iterator[Finding]:
    neutral = [record for record in labelled if record.emotion == NEUTRAL]
    hits = [record.id for record in neutral if affect_words(record.text)]
    if neutral and len(hits) > limits.neutral_affect * len(neutral):
        yield Finding(
            "affect_words",
            f"{len(hits)} of {count(neutral, 'neutral text')} name a feeling: "
            f"{some(hits, limits)}.",
            tuple(hits),
        )


def _imbalances(
    labelled: Sequence[Record], limits: LeakageLimits
) -> tuple[dict[str, dict[str, float]], list[Finding]]:
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for record in labelled:
        texts[str(record.emotion)].append(record.text)
    means: dict[str, dict[str, float]] = {}
    findings: list[Finding] = []
    for statistic in _STATISTICS:
        values = {e: [float(statistic.measure(t)) for t in ts] for e, ts in texts.items()}
        mean = means[statistic.kind] = {e: sum(v) / len(v) for e, v in values.items()}
        if len(mean) < 2:
            continue
        low, high = min(mean, key=mean.__getitem__), max(mean, key=mean.__getitem__)
        overall = sum(mean.values()) / len(mean)
        noise = limits.standard_errors * sqrt(
            _squared_error(values[low]) + _squared_error(values[high])
        )
        difference = mean[high] - mean[low]
        if difference > max(statistic.limit(limits, overall), noise):
            findings.append(
                Finding(
                    statistic.kind,
                    f"{statistic.what.capitalize()} differ between emotions: {mean[high]:.2f} for "
                    f"{high}, {mean[low]:.2f} for {low}.",
                )
            )
    return means, findings


def _squared_error(values: Sequence[float]) -> float:
    """Squared standard error of a mean; nothing can be said from fewer than five texts."""
    n = len(values)
    if n < _MIN_TEXTS:
        return inf
    mean = sum(values) / n
    return sum((v - mean) ** 2 for v in values) / (n - 1) / n


def _near_duplicates(
    corpus: Corpus, labelled: Sequence[Record], limits: LeakageLimits
) -> Iterator[Finding]:
    contents = _contents(corpus)
    pools = {
        "events": [(group, scenario, text) for group, (scenario, text) in contents.items()],
        "texts": [(r.id, group_name(r.group_key), r.text) for r in labelled],
    }
    for what, every in pools.items():
        pool = [entry for entry in every if n_words(entry[2]) >= limits.min_words]
        pairs = [
            (pool[i][0], pool[j][0])
            for i, j in near_duplicates([text for _, _, text in pool], limits.similarity)
            if pool[i][1] != pool[j][1]
        ]
        if pairs:
            shown = [f"{a} and {b}" for a, b in pairs]
            yield Finding(
                "near_duplicates",
                f"{count(pairs, 'pair')} of {what} {verb(pairs, 'is', 'are')} nearly the same: "
                f"{some(shown, limits)}.",
                tuple(dict.fromkeys(name for pair in pairs for name in pair)),
            )


def _incomplete(corpus: Corpus, limits: LeakageLimits) -> Iterator[Finding]:
    shared = len(corpus.groups()) < len(corpus)
    missing = incomplete_groups(corpus, corpus.labels()) if shared else {}
    if missing:
        shown = [f"{group} (no {', '.join(emotions)})" for group, emotions in missing.items()]
        yield Finding(
            "incomplete_group",
            f"{count(missing, 'group')} {verb(missing, 'lacks', 'lack')} an emotion, so content "
            f"does not cancel: {some(shown, limits)}.",
            tuple(missing),
        )


def _unequal_prompts(corpus: Corpus, limits: LeakageLimits) -> Iterator[Finding]:
    """What the user says must not differ within a group, nor an emotion's system prompt at all."""
    said: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    asked: defaultdict[str, set[str]] = defaultdict(set)
    for record in corpus:
        system = [m.content for m in record.messages if m.role == "system"]
        user = tuple(m.content for m in record.messages if m.role == "user")
        if user:
            said[group_name(record.group_key)].add(user)
        if system and record.emotion:
            asked[record.emotion].add(system[0])
    groups = [group for group, prompts in said.items() if len(prompts) > 1]
    if groups:
        yield Finding(
            "unequal_prompts",
            f"{count(groups, 'group')} {verb(groups, 'has', 'have')} prompts that differ between "
            f"emotions, white space included: {some(groups, limits)}.",
            tuple(groups),
        )
    emotions = [e for e, prompts in asked.items() if len(prompts) > 1]
    if emotions and corpus.design == "elicited":
        yield Finding(
            "unequal_prompts",
            f"System prompts for {', '.join(emotions)} differ between groups (white space counts).",
            tuple(emotions),
        )


def _split_overlap(corpus: Corpus, limits: LeakageLimits) -> Iterator[Finding]:
    uses: defaultdict[str, set[str]] = defaultdict(set)
    for record in corpus:
        uses[record.scenario].add(record.role)
    shared = {name: sorted(roles) for name, roles in uses.items() if len(roles) > 1}
    if shared:
        shown = [f"{name} ({' and '.join(roles)})" for name, roles in shared.items()]
        yield Finding(
            "split_overlap",
            f"{count(shared, 'scenario')} {verb(shared, 'is', 'are')} in more than one split or "
            f"role: {some(shown, limits)}.",
            tuple(shared),
        )
