"""What a search for a way to steer tries."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from affectlens.core import DataError
from affectlens.core.errors import unknown
from affectlens.pipeline.settings import REPLIES
from affectlens.steering.bands import band_layers, length_of
from affectlens.steering.operators import OPERATORS
from affectlens.steering.spec import MAX_STRENGTH, POSITIONS, SteeringSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affectlens.models.generation.decoding import GenerationSettings
    from affectlens.steering import SteeringPack


@dataclass(frozen=True)
class SearchSettings:
    """What is tried.

    Attributes:
        emotion: That is to be heard.
        modes: Of the pack; default: all.
        bands: Names of `affectlens.steering.bands.BANDS`, layers, or ranges of them.
        strengths: Shares of the recommended dose of all layers, in total length.
        operators: Those that add.
        positions: Default: those of the pack.
        gate: Of all candidates; None: no gate.
        budget: Generated tokens of the whole search.
        keep: Of so many candidates one goes on.
        max_perplexity_ratio: Candidates that cost more are dropped at once.
        kl_events: Events on which the distance to the unsteered distribution is measured.
        generation: Of all replies.
    """

    emotion: str
    modes: tuple[str, ...] = ()
    bands: tuple[str, ...] = ("all", "early", "middle", "late")
    strengths: tuple[float, ...] = (0.5, 0.75, 1.0, 1.4)
    operators: tuple[str, ...] = ("add",)
    positions: tuple[str, ...] = ()
    gate: str | None = None
    budget: int = 16_000
    keep: int = 3
    max_perplexity_ratio: float = 4.0
    kl_events: int = 4
    generation: GenerationSettings = field(default_factory=lambda: REPLIES)

    def __post_init__(self) -> None:
        if not (self.strengths and min(self.strengths) > 0 and max(self.strengths) < np.inf):
            raise DataError(f"Strengths must be numbers above 0, not {list(self.strengths)}.")
        for name in self.operators:
            if not OPERATORS[name].adds:
                raise DataError(
                    f"The operator {name} adds nothing, so it has no doses to search; name those "
                    "that add."
                )
        for name in self.positions:
            if name not in POSITIONS:
                raise unknown("positions", name, POSITIONS)
        if self.keep < 2 or self.kl_events < 1 or not self.max_perplexity_ratio > 1:
            raise DataError(
                "Of two candidates or more one goes on, the distance needs an event, and the "
                f"perplexity ratio a limit above 1, not {self.keep}, {self.kl_events} and "
                f"{self.max_perplexity_ratio}."
            )


@dataclass(frozen=True)
class Candidate:
    """One way to steer.

    Attributes:
        mode: Of the pack.
        band: As it was asked for.
        layers: That it stands for.
        strength: In natural doses.
        operator, positions: Of the request.
    """

    mode: str
    band: str
    layers: tuple[int, ...]
    strength: float
    operator: str
    positions: str

    def spec(self, label: str, labels: Sequence[str], gate: str | None) -> SteeringSpec:
        """The request for it.

        Args:
            label: What the pack that is steered with calls these vectors.
            labels: All that it has.
            gate: Of the request.
        """
        return SteeringSpec(
            {label: self.strength},
            mode=self.mode,
            positions=self.positions,
            operator=self.operator,
            unit="natural",
            gate=gate,
            emotions=labels,
        )


def candidates_of(pack: SteeringPack, asked: SearchSettings) -> list[Candidate]:
    """Every combination that is asked for, each once, stronger ones first.

    Of candidates that score alike the first goes on, and of those that are never heard the stronger
    ones tell more.

    Raises:
        UnknownNameError: If the pack lacks the emotion, a mode or a layer.
        DataError: If it does not steer the emotion at any of these layers.
    """
    e, found = asked.emotion, list[Candidate]()
    if e not in pack.emotions:
        raise unknown("emotion", e, pack.emotions)
    for mode in asked.modes or pack.modes:
        whole = length_of(pack, mode, e, band_layers(pack, mode, "all"))
        unit = abs(pack.recommended[mode][e]) or 1.0
        for band in asked.bands:
            layers = band_layers(pack, mode, band)
            part = length_of(pack, mode, e, layers)
            if part == 0:
                continue
            for share, operator, positions in itertools.product(
                sorted(asked.strengths, reverse=True),
                asked.operators,
                asked.positions or (pack.positions[mode],),
            ):
                strength = min(share * unit * whole / part, MAX_STRENGTH["natural"])
                one = Candidate(mode, band, layers, strength, operator, positions)
                if one not in found:
                    found.append(one)
    if not found:
        raise DataError(f"The pack does not steer {e} at any of these layers.")
    return found
