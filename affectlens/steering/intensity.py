"""From a dose to what is heard of it and back: the units that a pack has to be calibrated for.

Half a dose is not half as much anger. A `DoseResponse` holds what doses of one emotion did on
tuning scenarios, as a strictly rising line through a few knots, so that a request can ask for the
effect and get the dose: ``anger=0.5;unit=heard`` is the dose at which anger was heard with a mean
probability of a half, ``unit=kl`` the one that moves the distribution of the next token so many
nats from the unsteered one. The line is fitted elsewhere (`affectlens.evaluation.dose_response`);
here it is only read, because this runs inside generation servers.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.core import DataError
from affectlens.core.errors import unknown

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack
    from affectlens.steering.spec import SteeringSpec

logger = logging.getLogger(__name__)

CALIBRATED: Mapping[str, str] = {
    "heard": "how strongly a reader hears the emotion, from 0 to 1",
    "kl": "nats per token between the steered and the unsteered next token",
}
"""Units that mean an effect, and what it is."""

Responses = Mapping[str, Mapping[str, Mapping[str, "DoseResponse"]]]
"""Unit, mode, emotion."""


@dataclass(frozen=True)
class DoseResponse:
    """What doses of one emotion do, straight between knots.

    Attributes:
        doses: In natural doses, rising from 0.
        values: The effect at each, rising. The first is that of no steering.
    """

    doses: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("doses", "values"):
            given: Any = getattr(self, name)
            try:
                numbers = tuple(float(x) for x in given)
            except (TypeError, ValueError):
                numbers = (math.nan,)
            rising = all(a < b for a, b in itertools.pairwise(numbers))
            if len(numbers) < 2 or not rising or not all(map(math.isfinite, numbers)):
                raise DataError(
                    f"{name} of a dose-response must be two or more rising numbers, not {given!r}."
                )
            object.__setattr__(self, name, numbers)
        if len(self.doses) != len(self.values) or self.doses[0] != 0:
            raise DataError(
                f"A dose-response needs a value for every dose, the first of them 0, not "
                f"{len(self.values)} for {list(self.doses)}."
            )

    @property
    def range(self) -> tuple[float, float]:
        """The effects that were measured: of no steering, and of the largest dose."""
        return self.values[0], self.values[-1]

    def effect(self, dose: float) -> float:
        """What a dose does; of one beyond the last knot no more is known than of that."""
        return float(np.interp(abs(dose), self.doses, self.values))

    def dose(self, effect: float) -> float:
        """Inverse of `effect`, with the sign of what is asked.

        What is there without steering needs no dose; the most that was measured is the end.
        """
        return math.copysign(float(np.interp(abs(effect), self.values, self.doses)), effect)


def calibrated(pack: SteeringPack, spec: SteeringSpec) -> SteeringSpec:
    """A request in a calibrated unit, brought into the range that was measured.

    Args:
        pack: The pack.
        spec: Its mode and positions filled in.

    Returns:
        The same request; what lies beyond the range becomes its end, and what is there without
        steering is left out, both with a warning.

    Raises:
        DataError: If the pack has not been calibrated for it.
    """
    mode = str(spec.mode)
    known = pack.responses.get(spec.unit, {}).get(mode, {})
    missing = [e for e in spec.weights if e not in known]
    if missing:
        raise DataError(
            f"This pack does not know what doses of {missing[0]} do in mode {mode}, which unit="
            f"{spec.unit} needs; measure it with `affectlens tune intensity`, or use "
            "unit=recommended."
        )
    if spec.operator != "add" or spec.positions != pack.positions[mode]:
        raise DataError(
            f"unit={spec.unit} was measured with operator=add and positions="
            f"{pack.positions[mode]}; leave these options out, or use another unit."
        )
    weights: dict[str, float] = {}
    for emotion, asked in spec.weights.items():
        least, most = known[emotion].range
        if abs(asked) > most:
            logger.warning(
                "%s=%g is more than was measured (%s %.2f to %.2f); %.2f is steered.",
                emotion, asked, spec.unit, least, most, most,
            )  # fmt: skip
        elif abs(asked) <= least:
            logger.warning(
                "%s=%g is there without steering (%s %.2f to %.2f), and is left alone.",
                emotion, asked, spec.unit, least, most,
            )  # fmt: skip
            continue
        weights[emotion] = math.copysign(min(abs(asked), most), asked)
    return spec.changed(pack.emotions, weights=weights)


def with_responses(
    pack: SteeringPack, unit: str, mode: str, found: Mapping[str, DoseResponse]
) -> SteeringPack:
    """See `SteeringPack.with_responses`."""
    if unit not in CALIBRATED:
        raise unknown("calibrated unit", unit, CALIBRATED)
    pack.points(mode)
    modes = pack.responses.get(unit, {})
    emotions = {**modes.get(mode, {}), **found}
    return replace(pack, responses={**pack.responses, unit: {**modes, mode: emotions}})


def without_responses(responses: Responses, mode: str) -> Responses:
    """Those of other modes: a mode that is steered elsewhere has to be measured again."""
    left = {
        unit: {name: found for name, found in modes.items() if name != mode}
        for unit, modes in responses.items()
    }
    return {unit: modes for unit, modes in left.items() if modes}


def merged(one: Responses, other: Responses) -> Responses:
    """Those of two packs with different modes."""
    return {unit: {**one.get(unit, {}), **other.get(unit, {})} for unit in {**one, **other}}


def check_responses(pack: SteeringPack) -> None:
    """Hold the responses of a pack, which may be a stranger's, against it.

    Raises:
        UnknownNameError: If a unit, mode or emotion is not there.
        DataError: If something is no response, or heard more than 1.
    """
    for unit, modes in pack.responses.items():
        if unit not in CALIBRATED:
            raise unknown("calibrated unit", unit, CALIBRATED)
        for mode, found in modes.items():
            if mode not in pack.modes:
                raise unknown("mode of a dose-response", mode, pack.modes)
            for emotion, response in found.items():
                if emotion not in pack.emotions:
                    raise unknown("emotion", emotion, pack.emotions)
                if not isinstance(response, DoseResponse):
                    raise DataError(f"{response!r} is no dose-response of {emotion}.")
                least, most = response.range
                if least < 0 or (unit == "heard" and most > 1):
                    raise DataError(
                        f"The dose-response of {emotion} goes from {least:g} to {most:g}, which "
                        f"unit={unit} cannot."
                    )


def facts(responses: Responses) -> dict[str, Any]:
    """As JSON."""
    return {
        unit: {
            mode: {e: {"doses": list(r.doses), "values": list(r.values)} for e, r in found.items()}
            for mode, found in modes.items()
        }
        for unit, modes in responses.items()
    }


def from_facts(raw: Mapping[str, Any]) -> Responses:
    """Inverse of `facts`.

    Raises:
        KeyError, TypeError, AttributeError, DataError: If something is missing or wrong.
    """
    return {
        unit: {
            mode: {e: DoseResponse(r["doses"], r["values"]) for e, r in found.items()}
            for mode, found in modes.items()
        }
        for unit, modes in raw.items()
    }
