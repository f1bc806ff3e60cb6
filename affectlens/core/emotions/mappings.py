"""From one label set to another, with what is lost on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from affectlens.core.emotions.label_sets import LABEL_SETS, LabelSet
from affectlens.core.emotions.names import EMOTIONS, NEUTRAL
from affectlens.core.emotions.parrott import SECONDARY, TERTIARY
from affectlens.core.errors import DataError
from affectlens.core.registry import Registry


@dataclass(frozen=True)
class LabelMapping:
    """What each label of one set is called in another.

    Attributes:
        source, target: Names of the two sets.
        to: Label → label; a label that is missing has no counterpart.
        why: On whose word.
    """

    source: str
    target: str
    to: Mapping[str, str]
    why: str

    def __post_init__(self) -> None:
        known = (LABEL_SETS[self.source].with_neutral, LABEL_SETS[self.target].with_neutral)
        for label, other in self.to.items():
            if label not in known[0] or other not in known[1]:
                raise DataError(f"{self.name} maps {label} to {other}, which are no such labels.")

    @property
    def name(self) -> str:
        """``"goemotions-ekman"``."""
        return f"{self.source}-{self.target}"

    @property
    def help(self) -> str:
        """How much is lost, and its grounds, in a line."""
        return (
            f"{len(self.to)} labels become {len(set(self.to.values()))}, {len(self.lost)} have no "
            f"counterpart; {self.why}"
        )

    @property
    def lost(self) -> tuple[str, ...]:
        """Labels without a counterpart."""
        return tuple(e for e in LABEL_SETS[self.source].labels if e not in self.to)

    @property
    def merged(self) -> Mapping[str, tuple[str, ...]]:
        """Labels of the target that several fall together in."""
        found: dict[str, list[str]] = {}
        for label, other in self.to.items():
            found.setdefault(other, []).append(label)
        return {other: tuple(labels) for other, labels in found.items() if len(labels) > 1}

    @property
    def unreached(self) -> tuple[str, ...]:
        """Labels of the target that no label becomes."""
        return tuple(e for e in LABEL_SETS[self.target].labels if e not in self.to.values())

    def __call__(self, label: str) -> str | None:
        """The counterpart of a label; None if it has none."""
        return self.to.get(label)

    def losses(self) -> str:
        """In a sentence: what falls together, what has no counterpart, and what is not reached."""
        parts = [f"{' + '.join(labels)} → {other}" for other, labels in self.merged.items()]
        said = [f"fall together: {', '.join(parts)}"] if parts else []
        said += [f"no counterpart: {', '.join(self.lost)}"] if self.lost else []
        said += [f"not reached: {', '.join(self.unreached)}"] if self.unreached else []
        return "; ".join(said) or "nothing is lost"


def label_mapping(source: str, target: str) -> LabelMapping:
    """The mapping from one label set to another.

    Raises:
        UnknownNameError: If a set does not exist, or nobody has mapped the one to the other.
    """
    for name in (source, target):
        LABEL_SETS[name]  # or an error that names those there are
    return LABEL_MAPPINGS[f"{source}-{target}"]


def _same(labels: Iterable[str], of: Iterable[str]) -> dict[str, str]:
    """Labels that both sets have; joy and happiness are two words for one."""
    known = set(of)
    twins = {"joy": "happiness", "happiness": "joy"}
    named = {e: e if e in known else twins.get(e, e) for e in labels}
    return {e: other for e, other in named.items() if other in known}


def _with_neutral(to: Mapping[str, str]) -> dict[str, str]:
    """No feeling is no feeling in any set."""
    return {**to, NEUTRAL: NEUTRAL}


def _wheel(labels: Iterable[str], wheel: LabelSet) -> dict[str, str]:
    """Labels that are on Plutchik's wheel by name, at any intensity."""
    by_intensity = {
        name: label for table in (wheel.milder, wheel.stronger) for label, name in table.items()
    }
    return {e: by_intensity[e] for e in labels if e in by_intensity} | _same(labels, wheel.labels)


def _under(labels: Iterable[str], tree: Mapping[str, str]) -> dict[str, str]:
    """Labels that are words of a tree, with what they stand under."""
    return {e: tree[e] for e in labels if e in tree}


_GO, _PLUTCHIK = LABEL_SETS["goemotions"].labels, LABEL_SETS["plutchik"]
_PRIMARY = {word: SECONDARY[secondary] for word, secondary in TERTIARY.items()}
_TO_EKMAN: Mapping[str, str] = {
    label: ours
    for ours, labels in {
        "anger": "anger annoyance disapproval",
        "disgust": "disgust",
        "fear": "fear nervousness",
        "happiness": "joy amusement approval excitement gratitude love optimism relief pride "
        "admiration desire caring",
        "sadness": "sadness disappointment embarrassment grief remorse",
        "surprise": "surprise realization confusion curiosity",
        NEUTRAL: NEUTRAL,
    }.items()
    for label in labels.split()
}
_DIRECT = "labels of one name; joy is happiness"
_INTENSITY = "labels that stand on the wheel by name, at any intensity; dyads are no one label"
_TREE = "where the label stands in Parrott's tree"

LABEL_MAPPINGS: Registry[LabelMapping] = Registry(
    "label mapping",
    LabelMapping("goemotions", "ekman", _TO_EKMAN, "the authors' ekman_mapping.json"),
    LabelMapping("goemotions", "plutchik", _with_neutral(_wheel(_GO, _PLUTCHIK)), _INTENSITY),
    LabelMapping("goemotions", "parrott", _with_neutral(_under(_GO, _PRIMARY)), _TREE),
    LabelMapping("goemotions", "parrott_secondary", _with_neutral(_under(_GO, TERTIARY)), _TREE),
    LabelMapping("plutchik", "ekman", _same(_PLUTCHIK.labels, EMOTIONS), _DIRECT),
    LabelMapping("ekman", "plutchik", _same(EMOTIONS, _PLUTCHIK.labels), _DIRECT),
    LabelMapping("ekman", "parrott", _under(EMOTIONS, _PRIMARY), _TREE),
    LabelMapping("plutchik", "parrott", _under(_PLUTCHIK.labels, _PRIMARY), _TREE),
    LabelMapping("parrott", "ekman", _same(LABEL_SETS["parrott"].labels, EMOTIONS), _DIRECT),
    LabelMapping("parrott_secondary", "parrott", SECONDARY, _TREE),
    LabelMapping("parrott_tertiary", "parrott_secondary", TERTIARY, _TREE),
    LabelMapping("parrott_tertiary", "parrott", _PRIMARY, _TREE),
)
"""All mappings, by ``source-target``."""
