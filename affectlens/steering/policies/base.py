"""What a policy is: from what is known at a turn to the emotions of the next reply.

A policy is a frozen record of its settings and two pure functions. What it remembers from turn to
turn is an `AffectState`, which the caller holds: the same state, message and policy always give the
same decision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Protocol, Self, cast

from affectlens.core import EMOTIONS, DataError
from affectlens.core.emotions import DIMENSIONS, NEUTRAL
from affectlens.core.errors import unknown
from affectlens.steering.affect_targets import LEAST, place_of
from affectlens.steering.spec import SteeringSpec, limit_of

STRONGEST = 20.0
"""A strength beyond is a typing error, as in a spec."""
_ROUNDING, _DIGITS = 1e-6, 4


@dataclass(frozen=True)
class AffectState:
    """A place in valence, arousal and dominance, each in [-1, 1].

    Raises:
        DataError: If a number is none in that range.
    """

    valence: float = 0.0
    arousal: float = 0.0
    dominance: float = 0.0

    def __post_init__(self) -> None:
        for name in DIMENSIONS:
            object.__setattr__(self, name, in_range(name, getattr(self, name), -1, 1))

    @classmethod
    def clipped(cls, place: Sequence[float]) -> Self:
        """The nearest state to a place that may lie outside the range."""
        return cls(*(max(-1.0, min(1.0, x)) for x in place))

    @property
    def place(self) -> tuple[float, float, float]:
        """The three numbers."""
        return self.valence, self.arousal, self.dominance


@dataclass(frozen=True)
class Known:
    """What is known before a reply.

    Attributes:
        state: What the turn before has left, or `Policy.begin`.
        read: What the user's message is read as: label to probability, the neutral tone too.
        emotions: Those that can be steered.

    Raises:
        UnknownNameError: If something was read that is neither one of them nor neutral.
        DataError: If a probability is none, or they add up to more than 1.
    """

    state: AffectState
    read: Mapping[str, float]
    emotions: tuple[str, ...] = EMOTIONS

    def __post_init__(self) -> None:
        checked: dict[str, float] = {}
        for name, share in self.read.items():
            if name not in (*self.emotions, NEUTRAL):
                raise unknown("emotion that is read", name, (*self.emotions, NEUTRAL))
            checked[name] = in_range(f"The probability of {name}", share, 0, 1 + _ROUNDING)
        if sum(checked.values()) > 1 + _ROUNDING * (1 + len(checked)):
            raise DataError(
                f"Probabilities of what is read must add up to 1 at most, not to "
                f"{sum(checked.values()):g}."
            )
        object.__setattr__(self, "read", checked)

    @property
    def felt(self) -> dict[str, float]:
        """What was read, without the neutral tone."""
        return {name: share for name, share in self.read.items() if name in self.emotions}

    @property
    def place(self) -> tuple[float, float, float]:
        """Where the message lies: ``c = Σ_e p_e a_e``, ``a_e`` the emotions' coordinates."""
        return place_of(self.felt)


@dataclass(frozen=True)
class Decision:
    """What a policy wants of the next reply.

    Attributes:
        strengths: Emotion to signed strength; those nobody would hear are left out.
        state: For the next turn.
    """

    strengths: Mapping[str, float]
    state: AffectState = field(default_factory=AffectState)

    def __post_init__(self) -> None:
        audible = {
            e: round(float(s), _DIGITS) for e, s in self.strengths.items() if abs(s) >= LEAST
        }
        object.__setattr__(self, "strengths", audible)

    @classmethod
    def of(cls, strengths: Mapping[str, float]) -> Self:
        """One whose state is the place of its strengths."""
        return cls(strengths, AffectState.clipped(place_of(strengths)))

    def spec(self, emotions: Sequence[str] = EMOTIONS, **options: Any) -> SteeringSpec:
        """The request that steers so.

        Args:
            emotions: Names that are accepted.
            options: Other fields of `SteeringSpec`, such as ``mode`` or ``unit``.

        Raises:
            UnknownNameError, DataError: As `SteeringSpec`.
        """
        return SteeringSpec(self.strengths, emotions=emotions, **options)


class Policy(Protocol):
    """A record of settings, all with defaults, that decides."""

    @property
    def largest(self) -> float:
        """The largest strength, without sign, that it may ever decide on."""
        ...

    def begin(self) -> AffectState:
        """The state before the first turn."""
        ...

    def decide(self, known: Known) -> Decision:
        """The emotions of the next reply."""
        ...


@dataclass(frozen=True)
class PolicyKind:
    """A row of `POLICIES`.

    Attributes:
        name: What users write.
        help: One line.
        formula: Strengths ``s`` from what is read (``p``), the state (``m``), the message's place
            (``c``).
        source: Who published it.
        make: Makes it of its settings, by name; a class.
    """

    name: str
    help: str
    formula: str
    source: str
    make: Callable[..., Policy]


def in_range(name: str, value: Any, low: float, high: float) -> float:
    """A number, if it is one in the range.

    Raises:
        DataError: Otherwise; says what it was.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= high:
        raise DataError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}.")
    return float(value)


def strength_of(value: Any) -> float:
    """How strongly a policy steers, a number from 0 on that all its strengths are multiplied by.

    Raises:
        DataError: If it is none.
    """
    return in_range("strength", value, 0, STRONGEST)


@dataclass(frozen=True)
class OfReading:
    """Settings of a policy whose strengths follow what is read.

    Attributes:
        strength: That of an emotion which is read for certain.
        least: Probability below which an emotion is left alone, in [0, 1].

    Raises:
        DataError: If a number is out of its range.
    """

    strength: float = 1.0
    least: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", strength_of(self.strength))
        object.__setattr__(self, "least", in_range("least", self.least, 0, 1))

    @property
    def largest(self) -> float:
        """That of an emotion which is read for certain."""
        return self.strength

    def begin(self) -> AffectState:
        """The origin."""
        return AffectState()


def require_within(policy: Policy, emotions: Sequence[str], options: Mapping[str, Any]) -> None:
    """Refuse a policy that may ask for more than its requests can say.

    Args:
        policy: The policy.
        emotions: Those that can be steered.
        options: Of every request: fields of `SteeringSpec`.

    Raises:
        UnknownNameError: If an option's choice does not exist.
        DataError: If its largest strength is beyond that of the operator and the unit.
    """
    asked = SteeringSpec({emotions[0]: LEAST}, emotions=emotions, **options)
    limit = limit_of(asked.operator, asked.unit)
    if round(policy.largest, _DIGITS) > limit:
        raise DataError(
            f"This policy may ask for a strength of {policy.largest:g}; with operator="
            f"{asked.operator} and unit={asked.unit} strengths go up to {limit:g}. Give it a "
            "smaller strength, or use another unit."
        )


def pairs_of(name: str, value: Any) -> dict[str, float]:
    """Names with numbers, from a mapping or a text such as ``"happiness:0.4,surprise:0.2"``.

    Args:
        name: Of the setting, for messages.
        value: What was given.

    Raises:
        DataError: If it cannot be read, a name comes twice, or a number is not finite.
    """
    how = f"write {name} as name:number with commas between, not {value!r}."
    if isinstance(value, Mapping):
        given: list[tuple[Any, Any]] = list(cast("Mapping[Any, Any]", value).items())
    elif isinstance(value, str):
        parts = [part.partition(":") for part in value.split(",") if part.strip()]
        given = [(key.strip(), number.strip()) for key, _, number in parts]
    else:
        raise DataError(f"Cannot read {name}; {how}")
    found: dict[str, float] = {}
    for key, number in given:
        try:
            amount = math.nan if isinstance(number, bool) else float(number)
        except (TypeError, ValueError):
            amount = math.nan
        if not (isinstance(key, str) and key and math.isfinite(amount)):
            raise DataError(f"Cannot read {name}; {how}")
        if key in found:
            raise DataError(f"{name} has {key} twice; give one number for it.")
        found[key] = amount
    return found
