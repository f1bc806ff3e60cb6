"""Label sets by name, with what their authors say of the labels' kin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from affectlens.core.emotions.coordinates import Coordinates, coordinates
from affectlens.core.emotions.names import EMOTIONS, NEUTRAL, emotion_name
from affectlens.core.emotions.parrott import PRIMARY, SECONDARY, SOURCE, TERTIARY
from affectlens.core.errors import DataError
from affectlens.core.registry import Registry


@dataclass(frozen=True)
class LabelSet:
    """Labels that belong together.

    Attributes:
        name: What users write.
        help: One line.
        labels: In the authors' order.
        source: What to cite.
        broader: Label → the label of a coarser set that it falls under.
        opposite: Label → the label across from it.
        composed_of: Name of a mixture → the two labels that make it.
        milder, stronger: Label → its name at low and at high intensity.
        own_coordinates: Of labels that the package knows nothing of, from an ontology file.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    source: str
    broader: Mapping[str, str] = field(default_factory=dict[str, str])
    opposite: Mapping[str, str] = field(default_factory=dict[str, str])
    composed_of: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    milder: Mapping[str, str] = field(default_factory=dict[str, str])
    stronger: Mapping[str, str] = field(default_factory=dict[str, str])
    own_coordinates: Mapping[str, Coordinates] = field(default_factory=dict[str, Coordinates])

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise DataError(f"The label set {self.name} needs labels, each once.")
        kin = (self.broader, self.opposite, self.milder, self.stronger)
        known = set(self.labels)
        stray = [label for table in kin for label in table if label not in known]
        stray += [p for pair in self.composed_of.values() for p in pair if p not in known]
        stray += [other for other in self.opposite.values() if other not in known]
        if stray:
            raise DataError(f"The label set {self.name} says something of {stray[0]}, no label.")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def with_neutral(self) -> tuple[str, ...]:
        """The labels, and the neutral one if it is not among them."""
        return self.labels if NEUTRAL in self.labels else (*self.labels, NEUTRAL)

    @property
    def vad(self) -> Mapping[str, tuple[float, float, float]]:
        """Valence, arousal, dominance of the labels that have any; the others are missing."""
        found = {label: self.coordinates(label) for label in self.labels}
        return {label: one.vad for label, one in found.items() if one is not None}

    def coordinates(self, label: str) -> Coordinates | None:
        """Where a label lies, and who says so; None if nobody published it.

        Raises:
            UnknownNameError: If it is no label of the set.
        """
        name = emotion_name(label, self.labels)
        return self.own_coordinates.get(name) or coordinates(name)


_WHEEL = (
    ("joy", "serenity", "ecstasy"),
    ("trust", "acceptance", "admiration"),
    ("fear", "apprehension", "terror"),
    ("surprise", "distraction", "amazement"),
    ("sadness", "pensiveness", "grief"),
    ("disgust", "boredom", "loathing"),
    ("anger", "annoyance", "rage"),
    ("anticipation", "interest", "vigilance"),
)
"""Around the wheel: label, mild, strong. Across from each lies the one four places on."""
_DYADS = (
    "love", "submission", "awe", "disapproval", "remorse", "contempt", "aggressiveness", "optimism"
)  # fmt: skip
"""Of neighbours on the wheel: joy and trust make love, trust and fear submission, …"""
_AROUND = tuple(name for name, _, _ in _WHEEL)

GOEMOTIONS = (
    "admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion",
    "curiosity", "desire", "disappointment", "disapproval", "disgust", "embarrassment",
    "excitement", "fear", "gratitude", "grief", "joy", "love", "nervousness", "optimism", "pride",
    "realization", "relief", "remorse", "sadness", "surprise", NEUTRAL,
)  # fmt: skip
"""In the order of the authors' label ids."""

LABEL_SETS: Registry[LabelSet] = Registry(
    "label set",
    LabelSet(
        "ekman",
        "Ekman's six basic emotions",
        EMOTIONS,
        "Ekman, 1992, An Argument for Basic Emotions, Cognition and Emotion 6, 169-200",
    ),
    LabelSet(
        "plutchik",
        "Plutchik's eight primary emotions, with intensities, opposites and dyads",
        _AROUND,
        "Plutchik, 1980, A General Psychoevolutionary Theory of Emotion",
        opposite={name: _AROUND[(i + 4) % 8] for i, name in enumerate(_AROUND)},
        composed_of={dyad: (_AROUND[i], _AROUND[(i + 1) % 8]) for i, dyad in enumerate(_DYADS)},
        milder={name: mild for name, mild, _ in _WHEEL},
        stronger={name: strong for name, _, strong in _WHEEL},
    ),
    LabelSet("parrott", "Parrott's six primary emotions", PRIMARY, SOURCE),
    LabelSet(
        "parrott_secondary",
        "Parrott's 25 secondary emotions",
        tuple(SECONDARY),
        SOURCE,
        broader=SECONDARY,
    ),
    LabelSet(
        "parrott_tertiary",
        "Parrott's 135 words for emotions",
        tuple(TERTIARY),
        SOURCE,
        broader=TERTIARY,
    ),
    LabelSet(
        "goemotions",
        "the 27 emotions of GoEmotions, and neutral",
        GOEMOTIONS,
        "Demszky et al., 2020, GoEmotions, ACL (arXiv 2005.00547)",
    ),
)
"""All label sets, by name."""


def label_set(name: str) -> LabelSet:
    """A label set.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    return LABEL_SETS[name]
