"""One generated reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from affectlens.core import DataError


@dataclass(frozen=True)
class Reply:
    """One generated reply.

    Attributes:
        arm: One of `affectlens.evaluation.ARMS` (or a name of the caller's).
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
