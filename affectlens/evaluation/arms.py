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


@dataclass(frozen=True)
class ArmKind:
    """What an arm is.

    Attributes:
        title: For people.
        mode: Steering mode of its pack; "" if it is not steered.
    """

    title: str
    mode: str = ""


ARMS: Mapping[str, ArmKind] = {
    "unsteered": ArmKind("unsteered"),
    "prompted": ArmKind("prompted"),
    "residual": ArmKind("residual", "residual"),
    "circuit": ArmKind("circuit", "circuit"),
    "analytic_residual": ArmKind("residual, not refined", "residual"),
    "analytic_circuit": ArmKind("circuit, not refined", "circuit"),
    "random_units_refined_1": ArmKind("random units refined alike, 1", "circuit"),
    "random_units_refined_2": ArmKind("random units refined alike, 2", "circuit"),
    "random_units_analytic": ArmKind("random units, not refined", "circuit"),
    "random": ArmKind("random direction, equal norm", "residual"),
}
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
