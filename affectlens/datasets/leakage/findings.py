"""What a leakage check tolerates and what it reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LeakageLimits:
    """How much is too much.

    Attributes:
        share: Largest difference between two emotions in the share of texts that have capitals
            (a word of three or more), an exclamation mark or a question mark.
        length: Largest difference in mean words per text, as a share of the overall mean.
        punctuation: The same for punctuation marks per word.
        standard_errors: A difference must also be this many standard errors (and both emotions
            have five texts), so that a small corpus is not blamed for chance.
        similarity: Jaccard index of two word sets from which texts are near-duplicates.
        min_words: Shorter texts are never near-duplicates ("so cute" will come twice).
        neutral_affect: Largest share of neutral texts that name a feeling.
        examples: How many records a finding names.
    """

    share: float = 0.15
    length: float = 0.2
    punctuation: float = 0.5
    standard_errors: float = 3.0
    similarity: float = 0.6
    min_words: int = 5
    neutral_affect: float = 0.1
    examples: int = 3


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        kind: ``"affect_words"``, ``"capitals"``, ``"exclamation_marks"``, ``"question_marks"``,
            ``"length"``, ``"punctuation"``, ``"near_duplicates"``, ``"incomplete_group"``,
            ``"unequal_prompts"``, ``"split_overlap"``, ``"line_breaks"``, ``"unlabelled"`` or
            ``"near_labels"``.
        message: It, in words.
        records: Ids of the records (or names of the groups) concerned.
    """

    kind: str
    message: str
    records: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class LeakageReport:
    """What `check_leakage` found.

    Attributes:
        corpus: Name of the corpus.
        fingerprint: Its fingerprint.
        findings: Problems, if any.
        statistics: ``statistic -> emotion -> mean`` over the texts that carry the label.
    """

    corpus: str
    fingerprint: str
    findings: tuple[Finding, ...]
    statistics: Mapping[str, Mapping[str, float]]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def messages(self) -> tuple[str, ...]:
        """The findings in words."""
        return tuple(finding.message for finding in self.findings)

    def of_kind(self, kind: str) -> tuple[Finding, ...]:
        """The findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)


def count(items: Sequence[object] | Mapping[str, object], noun: str) -> str:
    """``"1 pair"``, ``"3 pairs"``."""
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def verb(items: Sequence[object] | Mapping[str, object], one: str, many: str) -> str:
    """The form of a verb that agrees with how many there are."""
    return one if len(items) == 1 else many


def some(names: Iterable[str], limits: LeakageLimits) -> str:
    """The first few names and how many more there are."""
    every = list(names)
    rest = len(every) - limits.examples
    return ", ".join(every[: limits.examples]) + (f" and {rest} more" if rest > 0 else "")
