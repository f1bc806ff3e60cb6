"""What a user asks: which emotions, how strongly, where and how.

One parser reads what people type, what clients send as JSON and what Python code passes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from numbers import Real
from typing import Any, cast

from affectlens.core import EMOTIONS, DataError, emotion_name, fingerprint
from affectlens.core.errors import unknown
from affectlens.steering.affect_targets import from_dimensions
from affectlens.steering.gates import Gate
from affectlens.steering.intensity import CALIBRATED
from affectlens.steering.operators import OPERATORS
from affectlens.steering.schedules import Schedule

MODES: Mapping[str, tuple[str, ...]] = {
    "residual": ("resid_post",),
    "circuit": ("o_proj_out", "down_proj_out"),
    "low_rank": ("resid_post",),
    "gradient": ("resid_post",),
}
"""Where each mode writes: ``residual`` to block outputs, ``circuit`` to those of attention and MLP.

The latter two come before a post-norm, where a family has one. ``low_rank`` changes block outputs
by a map of what they are (`affectlens.steering.low_rank`), ``gradient`` by a step of a classifier
(`affectlens.steering.classifier`).
"""

POSITIONS: tuple[str, ...] = ("generated", "last_prompt+generated", "prompt", "all")
"""By absolute index against the prompt's length, never by index in a chunk."""

UNITS: tuple[str, ...] = ("recommended", "natural", "rms", "raw", *CALIBRATED)
"""What strength 1 means.

``recommended``: the dose the pack recommends, chosen on tuning scenarios. ``natural``: one natural
dose, the norm of the centred difference. ``rms``: the residual's mean RMS at that layer (the
published strength is 8). ``raw``: a vector of norm 1. ``heard`` and ``kl`` name an effect, and the
pack knows the dose that has it, if it was calibrated: see `affectlens.steering.intensity`.
"""

MAX_STRENGTH: Mapping[str, float] = {
    "recommended": 20,
    "natural": 20,
    "rms": 100,
    "raw": 10_000,
    "heard": 1,
    "kl": 20,
}
"""Beyond these a strength is a typing error."""

_CHOICES: Mapping[str, Collection[str]] = {
    "mode": tuple(MODES),
    "positions": POSITIONS,
    "operator": OPERATORS,
    "unit": UNITS,
}
_DEFAULTS: Mapping[str, str | None] = {
    "mode": None,
    "positions": None,
    "operator": "add",
    "unit": "recommended",
    "gate": None,
    "schedule": None,
}
_NOTHING = "none"
_MARKS = frozenset("=,;<>{}/\\")


def limit_of(operator: str, unit: str) -> float:
    """The largest strength that an operator takes in a unit; of shares the unit is nothing."""
    share = OPERATORS[operator].share
    return MAX_STRENGTH[unit] if share is None else share


def can_be_named(label: str) -> bool:
    """Whether a spec in text can ask for a label: it is no option's name and has no mark of one."""
    return label not in (*_DEFAULTS, "weights", _NOTHING) and _MARKS.isdisjoint(label)


@dataclass(frozen=True)
class SteeringSpec:
    """One request to steer. Specs that mean the same are equal and have the same text.

    Attributes:
        weights: Emotion to signed strength. Zeros drop out; without weights nothing is changed.
        mode: One of `MODES`, or None for the pack's first.
        positions: One of `POSITIONS`, or None for what the pack recommends.
        operator: One of `affectlens.steering.operators.OPERATORS`.
        unit: One of `UNITS`, what the strengths are measured in. Operators whose strengths are
            shares (``project_out``: 1 takes all of it out) have no unit.
        gate: A condition such as ``"sadness>0.4"``, or None. It is decided before the first place
            that is steered, or the pack refuses it; see `affectlens.steering.gates`.
        schedule: Share of the steering over the tokens of the reply, such as ``"rise:20"``, or
            None; see `affectlens.steering.schedules`.
        emotions: Names that are accepted, if not the usual six.
    """

    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    mode: str | None = None
    positions: str | None = None
    operator: str = "add"
    unit: str = "recommended"
    gate: Gate | str | None = None
    schedule: Schedule | str | None = None
    emotions: InitVar[Sequence[str]] = EMOTIONS

    def __post_init__(self, emotions: Sequence[str]) -> None:
        for name, valid in _CHOICES.items():
            value = getattr(self, name)
            if value is None and name in ("mode", "positions"):
                continue
            if value not in tuple(valid):
                raise unknown(name, value, valid)
        object.__setattr__(self, "gate", Gate.parse(self.gate))
        object.__setattr__(self, "schedule", Schedule.parse(self.schedule))
        if not isinstance(self.weights, Mapping):
            raise DataError(f"weights must map emotions to strengths, not be {self.weights!r}.")
        checked: dict[str, float] = {}
        for given, strength in self.weights.items():
            name = _emotion(given, emotions)
            if name in checked:
                raise DataError(f"weights name {name} twice; give one strength for it.")
            checked[name] = self._strength(name, strength)
        weights = {name: checked[name] for name in sorted(checked) if checked[name] != 0}
        object.__setattr__(self, "weights", weights)
        # What makes no difference must not make two specs differ.
        if not weights:
            for name, default in _DEFAULTS.items():
                object.__setattr__(self, name, default)
        elif OPERATORS[self.operator].share is not None:
            object.__setattr__(self, "unit", _DEFAULTS["unit"])

    def _strength(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise DataError(f"The strength of {name} must be a number, not {value!r}.")
        limit = limit_of(self.operator, self.unit)
        try:
            strength = float(value)
        except OverflowError:
            strength = math.inf
        if not abs(strength) <= limit:  # also catches NaN
            raise DataError(
                f"The strength of {name} must lie between -{limit:g} and {limit:g} "
                f"({self.operator}, unit {self.unit}), not be {strength!r}."
            )
        return strength

    def __hash__(self) -> int:
        return hash(str(self))

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return bool(self.weights)

    def __str__(self) -> str:
        """Canonical text; `parse` reads it back. Requests that change nothing are ``none``."""
        if not self.weights:
            return _NOTHING
        weights = ",".join(f"{name}={_number(value)}" for name, value in self.weights.items())
        options = [f";{name}={value}" for name, value in self._options().items()]
        return weights + "".join(options)

    def _options(self) -> dict[str, str]:
        """Options that are not at their defaults."""
        values = {name: getattr(self, name) for name in _DEFAULTS}
        return {name: str(value) for name, value in values.items() if value != _DEFAULTS[name]}

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON; `parse` reads it back."""
        return {"weights": dict(self.weights), **self._options()}

    @property
    def fingerprint(self) -> str:
        """Equal for specs that mean the same, whatever they were written like."""
        return fingerprint("spec", str(self))

    def changed(self, emotions: Sequence[str] | None = None, **fields: Any) -> SteeringSpec:
        """The same request with other fields."""
        names = tuple(emotions) if emotions is not None else (*EMOTIONS, *self.weights)
        return replace(self, emotions=names, **fields)

    @classmethod
    def parse(cls, value: Any, emotions: Sequence[str] = EMOTIONS) -> SteeringSpec:
        """Read a spec.

        Args:
            value: A spec; None or ``"none"`` (change nothing); text such as
                ``"anger=0.8,sadness=-0.2;mode=residual;positions=all"``; JSON; or a mapping,
                either ``{"anger": 0.8, "mode": "residual"}`` or with the strengths under
                ``"weights"``. In place of emotions a place may be asked for,
                ``"valence=-0.6,arousal=0.7"``: see `affectlens.steering.affect_targets`.
            emotions: Names that are accepted.

        Raises:
            UnknownNameError: If an emotion, option or choice does not exist; closest first.
            DataError: If a strength is no number or absurd, or the text cannot be read.
        """
        if isinstance(value, SteeringSpec):
            return value.changed(emotions)
        if value is None:
            return cls()
        weights, options = _read(value)
        if isinstance(weights, Mapping):
            weights = from_dimensions(weights, emotions)
        return cls(weights, emotions=emotions, **options)

    @classmethod
    def combined(cls, values: Iterable[Any], emotions: Sequence[str] = EMOTIONS) -> SteeringSpec:
        """One request of several that add up, such as an option that is given more than once.

        Args:
            values: What `parse` reads.
            emotions: Names that are accepted.

        Raises:
            UnknownNameError, DataError: As `parse`; also if two of them name the same emotion, or
                give an option different values.
        """
        weights: dict[Any, Any] = {}
        options: dict[str, Any] = {}
        for value in values:
            found, asked = _read({} if value is None else value)
            if not isinstance(found, Mapping):
                return cls(found, emotions=emotions)  # which says what is wrong with it
            for name, strength in found.items():
                if name in weights:
                    raise DataError(f"weights name {name} twice; give one strength for it.")
                weights[name] = strength
            for name, choice in asked.items():
                if options.setdefault(name, choice) != choice:
                    raise DataError(
                        f"The option {name} is {options[name]} and {choice}; keep one of them."
                    )
        return cls(from_dimensions(weights, emotions), emotions=emotions, **options)


def _read(value: Any) -> tuple[Any, dict[str, Any]]:
    """Weights and options that a spec in any form names."""
    if isinstance(value, SteeringSpec):
        value = value.to_dict()
    if isinstance(value, str):
        text = value.strip()
        value = _from_json(text) if text.startswith("{") else _from_text(text)
    if not isinstance(value, Mapping):
        raise DataError(
            f"A steering spec is a text such as 'anger=0.8', a mapping or a SteeringSpec, not "
            f"{value!r}."
        )
    given = cast("Mapping[Any, Any]", value)
    options = {name: given[name] for name in _DEFAULTS if name in given}
    rest = {name: v for name, v in given.items() if name not in _DEFAULTS}
    if "weights" not in rest:
        return rest, options
    weights = rest.pop("weights")
    if rest:
        raise unknown("steering option", next(iter(rest)), [*_DEFAULTS, "weights"])
    return weights, options


def _emotion(name: Any, emotions: Sequence[str]) -> str:
    if not isinstance(name, str):
        raise unknown("emotion", name, emotions)
    if name in emotions:  # a label of the user's own, capitals and all
        return name
    return emotion_name(name, tuple(emotions))


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _from_text(text: str) -> dict[str, Any]:
    """``anger=0.8,sadness=-0.2;mode=residual``."""
    if text in ("", _NOTHING):
        return {}
    first, *options = text.split(";")
    found = _pairs(part for part in first.split(",") if part.strip())
    weights: dict[str, Any] = {}
    for name, number in found:
        try:
            strength = float(number)
        except ValueError:
            raise DataError(
                f"The strength of {name} must be a number, not {number!r}; "
                "write for example anger=0.8."
            ) from None
        if name in weights:
            raise DataError(f"weights name {name} twice; give one strength for it.")
        weights[name] = strength
    result: dict[str, Any] = {"weights": weights}
    for name, choice in _pairs(part for part in options if part.strip()):
        if name not in _DEFAULTS:
            raise unknown("steering option", name, _DEFAULTS)
        if name in result:
            raise DataError(f"The option {name} is given twice; keep one.")
        result[name] = choice
    return result


def _pairs(parts: Iterable[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for part in parts:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise DataError(
                f"Cannot read {part.strip()!r} in a steering spec; write name=value, for example "
                "anger=0.8,sadness=-0.2;mode=residual."
            )
        pairs.append((name, value))
    return pairs


def _from_json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise DataError(f"The steering spec names {name} twice; keep one.")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"The steering spec cannot be read as JSON: {error}.") from error
