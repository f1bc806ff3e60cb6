"""What may be said of a circuit, in fixed words, each traced to the numbers it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from affectlens.core.artefact import Provenance, read_json, write_json
from affectlens.core.display import Displayed
from affectlens.core.errors import ArtefactError, MismatchError, UnknownNameError, unknown

WORDS: tuple[str, ...] = ("necessary", "sufficient", "specific", "stable")
"""What can be said of an emotion's units."""
OUTCOMES: tuple[str, ...] = ("passed", "failed", "untested")
UNTESTED = "ranked, untested"
"""What is shown of a circuit without evidence."""


@dataclass(frozen=True)
class Finding:
    """One word about one emotion's units.

    Attributes:
        outcome: One of :data:`OUTCOMES`.
        what: The number in words, with its unit.
        number: What was measured.
        control: The same of what stands beside it; None if nothing does.
        p: Of the comparison, by Holm over the emotions; None if there is no test.
        task: What it was measured on.
        units: How many units were tested.
        texts: How many texts.
        draws: How many random sets of units stood beside them.
        file: Where all numbers are, relative to the file of the evidence.
    """

    outcome: str = "untested"
    what: str = ""
    number: float | None = None
    control: float | None = None
    p: float | None = None
    task: str = ""
    units: int = 0
    texts: int = 0
    draws: int = 0
    file: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise unknown("outcome", self.outcome, OUTCOMES)

    def __str__(self) -> str:
        if self.number is None:
            return self.outcome
        beside = "" if self.control is None else f" against {self.control:.3f}"
        test = "" if self.p is None else f", p {self.p:.2g}"
        return f"{self.outcome} ({self.number:.3f}{beside}{test})"


@dataclass(frozen=True)
class Smallest:
    """How many of an emotion's units are enough, by their ranking.

    Attributes:
        outcome: ``"passed"`` if so many are enough, ``"failed"`` if none of the shares that were
            tried is (``share`` is the largest), ``"untested"`` if the texts are too few to say.
        share: Percent of the units of the model.
        heads, neurons: How many that is of each kind.
        f: Share of the margin that they keep alone.
        random: The same of as many random units.
        p: Of the difference, by Holm over all emotions and shares.
    """

    outcome: str = "untested"
    share: float | None = None
    heads: int = 0
    neurons: int = 0
    f: float | None = None
    random: float | None = None
    p: float | None = None

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise unknown("outcome", self.outcome, OUTCOMES)

    def __str__(self) -> str:
        if self.f is None:
            return "untested" if self.share is None else f"none up to {self.share:g} %"
        return (
            f"{self.heads} heads and {self.neurons} neurons ({self.share:g} %) keep {self.f:.3f} "
            f"against {self.random:.3f}, p {self.p:.2g}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Evidence(Displayed):
    """The verdict on every emotion of a circuit.

    Attributes:
        units: Hash of the units it is about, see `affectlens.circuits.Circuit.units_fingerprint`.
        findings: Emotion → word → finding; words that are missing are untested.
        provenance: What was measured, and on what.
        smallest: Emotion → how many of its units are enough; empty if faithfulness was not
            measured.
    """

    units: str
    findings: Mapping[str, Mapping[str, Finding]]
    provenance: Provenance = field(default_factory=lambda: Provenance("evidence"))
    smallest: Mapping[str, Smallest] = field(default_factory=dict[str, Smallest])

    def __post_init__(self) -> None:
        for words in self.findings.values():
            for word in words:
                if word not in WORDS:
                    raise unknown("verdict", word, WORDS)

    def finding(self, emotion: str, word: str) -> Finding:
        """One finding, untested if there is none.

        Raises:
            UnknownNameError: If there is no such word.
        """
        if word not in WORDS:
            raise unknown("verdict", word, WORDS)
        return self.findings.get(emotion, {}).get(word, Finding())

    def told(self, word: str) -> Finding | None:
        """A finding that says what a word's numbers are, one with a number if there is any."""
        found = [self.finding(emotion, word) for emotion in self.findings]
        found = [one for one in found if one.what]
        return next((one for one in found if one.number is not None), found[0] if found else None)

    def said(self) -> str:
        """In a line: of how many emotions each word holds; untested words as such."""
        parts = list[str]()
        for word in WORDS:
            outcomes = [self.finding(emotion, word).outcome for emotion in self.findings]
            tested = [one for one in outcomes if one != "untested"]
            share = f"{tested.count('passed')} of {len(tested)}" if tested else "untested"
            parts.append(f"{word} {share}")
        return ", ".join(parts)

    def brief(self) -> dict[str, object]:
        """Of how many emotions each word holds, and the model."""
        return {"says": self.said(), "model": self.provenance.model_name}

    def table_rows(self) -> list[dict[str, object]]:
        """A row for every emotion and word."""
        return [
            {"emotion": emotion, "verdict": word, **asdict(self.finding(emotion, word))}
            for emotion in self.findings
            for word in WORDS
        ]

    def smallest_rows(self) -> list[dict[str, object]]:
        """A row for every emotion: how many of its units are enough."""
        return [
            {"emotion": e, "enough": str(one), **asdict(one)} for e, one in self.smallest.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "units": self.units,
            "findings": {
                emotion: {word: asdict(one) for word, one in words.items()}
                for emotion, words in self.findings.items()
            },
            "provenance": asdict(self.provenance),
            "smallest": {emotion: asdict(one) for emotion, one in self.smallest.items()},
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Evidence:
        """Inverse of `to_dict`.

        Raises:
            MismatchError: If it is another kind of artefact.
        """
        made_by = Provenance(**plain["provenance"])
        if made_by.kind != "evidence":
            raise MismatchError(f"This is a {made_by.kind}, no evidence of a circuit.")
        found = {
            str(emotion): {str(word): Finding(**one) for word, one in words.items()}
            for emotion, words in plain["findings"].items()
        }
        enough = plain.get("smallest", {})
        smallest = {str(emotion): Smallest(**one) for emotion, one in enough.items()}
        return cls(str(plain["units"]), found, made_by, smallest)

    def save(self, path: str | Path) -> None:
        """Write it as JSON.

        Raises:
            ArtefactError: If the file cannot be written.
        """
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Evidence:
        """Read what `save` wrote.

        Raises:
            ArtefactError: If the file is missing or damaged.
            MismatchError: If it is another kind of artefact.
        """
        plain = read_json(Path(path))
        try:
            return cls.from_dict(plain)
        except (KeyError, TypeError, ValueError, AttributeError, UnknownNameError) as error:
            raise ArtefactError(f"{path} is damaged ({error}); measure it again.") from error


def said_of(evidence: Evidence | None) -> str:
    """What is shown of a circuit in one line."""
    return UNTESTED if evidence is None else evidence.said()
