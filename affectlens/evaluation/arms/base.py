"""Arms of the steering comparison, and the replies they are made of.

All arms answer byte-identical neutral prompts with the same decoding; only the ``prompted`` arm has
a system prompt that asks for the emotion. Beside the two arms that steer as the pack recommends
(``residual``, ``circuit``) stand controls that leave one thing out each: the refining, the choice
of units, the direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from affectlens.core import DataError
from affectlens.core.registry import Registry


@dataclass(frozen=True)
class ArmKind:
    """What an arm is.

    Attributes:
        name: What users write.
        title: For people.
        help: One line.
        mode: Steering mode of its pack; "" if it is not steered.
    """

    name: str
    title: str
    help: str
    mode: str = ""


UNSTEERED = "unsteered"
"""The arm that all others are relative to."""

ARMS: Registry[ArmKind] = Registry(
    "arm",
    ArmKind(UNSTEERED, "unsteered", "the model as it is"),
    ArmKind("prompted", "prompted", "a system prompt asks for the emotion"),
    ArmKind("residual", "residual", "refined directions in the residual stream", "residual"),
    ArmKind("circuit", "circuit", "refined differences at the circuit's units", "circuit"),
    ArmKind("analytic_residual", "residual, not refined", "directions as estimated", "residual"),
    ArmKind("analytic_circuit", "circuit, not refined", "differences of group means", "circuit"),
    ArmKind(
        "random_units_refined_1",
        "random units refined alike, 1",
        "as many units per sublayer as the circuit, drawn at random and refined",
        "circuit",
    ),
    ArmKind(
        "random_units_refined_2",
        "random units refined alike, 2",
        "the same with another draw",
        "circuit",
    ),
    ArmKind(
        "random_units_analytic",
        "random units, not refined",
        "random units with their own differences of group means",
        "circuit",
    ),
    ArmKind(
        "random",
        "random direction, equal norm",
        "random directions of the norms and strengths of residual",
        "residual",
    ),
)
"""Every arm of a run, in the order of its tables.

``random_units_*`` have as many units in every sublayer as the circuit, drawn at random (two draws),
and start from their own group differences; ``random`` has the norms and strengths of ``residual``.
"""


@dataclass(frozen=True)
class Reply:
    """One generated reply.

    Attributes:
        arm: One of :data:`ARMS` (or a name of the caller's).
        event: Id of the scenario-event answered.
        group: Its scenario: the unit of the bootstrap.
        valence: Of the event.
        emotion: The target, or "" in the unsteered arm (one reply serves all targets).
        prompt: The user's words.
        text: The reply.
        tokens: Number of generated tokens.
        nll: Mean nats per token under the unsteered model given the neutral prompt; NaN if empty.
    """

    arm: str
    event: str
    group: str
    valence: str
    emotion: str
    prompt: str
    text: str
    tokens: int
    nll: float

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON lines; an empty reply's NaN becomes null."""
        raw = asdict(self)
        raw["nll"] = None if np.isnan(self.nll) else round(self.nll, 5)
        return raw

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Reply:
        """Inverse of `to_dict`.

        Raises:
            DataError: If a field is missing or unknown.
        """
        try:
            fields: dict[str, Any] = dict(raw)
            fields["nll"] = float("nan") if raw["nll"] is None else float(raw["nll"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise DataError(f"A saved reply is damaged ({error}); evaluate again.") from error
