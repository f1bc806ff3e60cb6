"""A request in the light of a pack: what it left open is filled in, what cannot be is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from affectlens.core import DataError
from affectlens.steering.classifier import GRADIENT
from affectlens.steering.doses import cancels
from affectlens.steering.gates import Gate
from affectlens.steering.intensity import CALIBRATED, calibrated
from affectlens.steering.low_rank import LOW_RANK
from affectlens.steering.spec import SteeringSpec

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack

_NO_DIRECTIONS = {
    LOW_RANK: "has maps, which depend on the hidden state",
    GRADIENT: "takes steps of a classifier, which depend on the hidden state",
}
"""Modes whose vectors are but a part of what they do, or an example of it."""


def resolved(pack: SteeringPack, spec: Any) -> SteeringSpec:
    """See `SteeringPack.resolve`."""
    asked = SteeringSpec.parse(spec, pack.emotions)
    if not asked:
        return asked
    mode = asked.mode or pack.modes[0]
    pack.points(mode)
    if mode in _NO_DIRECTIONS:
        _require_additive(asked, mode)
    if asked.unit == "rms" and pack.rms is None:
        raise DataError(
            "This pack does not hold the residual's RMS, which unit=rms needs; use "
            "unit=natural, make the pack again (affectlens pack does), or put it in with "
            "pack.with_rms(residual_rms(model, prompts))."
        )
    positions = asked.positions or pack.positions[mode]
    found = asked.changed(pack.emotions, mode=mode, positions=positions)
    if found.unit in CALIBRATED and not (found := calibrated(pack, found)):
        return found
    if len(found.weights) > 1 and cancels(pack, found):
        raise DataError(
            f"The vectors of {found} cancel each other, so nothing would be steered; ask for fewer "
            "emotions, or for unlike strengths."
        )
    if isinstance(found.gate, Gate):
        pack.decider(found)
    if found.schedule is not None and positions == "prompt":
        raise DataError(
            f"schedule={found.schedule} runs over the tokens of the reply, of which "
            "positions=prompt steers none; leave one of the two out."
        )
    return found


def _require_additive(spec: SteeringSpec, mode: str) -> None:
    """Refuse an operator, which works on directions, and a unit, which is a length.

    Raises:
        DataError: Naming it.
    """
    if spec.operator != "add":
        raise DataError(
            f"The mode {mode} {_NO_DIRECTIONS[mode]}, no directions that operator={spec.operator} "
            "could work on; leave the operator out, or choose another mode."
        )
    if spec.unit in ("rms", "raw"):
        raise DataError(
            f"The mode {mode} {_NO_DIRECTIONS[mode]}, so nothing has a length in unit={spec.unit}; "
            "use unit=natural, 1 for what it is by itself."
        )
