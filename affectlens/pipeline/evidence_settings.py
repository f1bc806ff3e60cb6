"""How a run tests its circuit."""

from __future__ import annotations

from dataclasses import dataclass

from affectlens.circuits.evidence import (
    AblationSettings,
    FaithfulnessSettings,
    IdentitySettings,
)
from affectlens.circuits.evidence.study import StudySettings
from affectlens.pipeline.rules import PLACEMENT, Placement


@dataclass(frozen=True)
class EvidenceSettings:
    """How the circuit is tested in a run: in small, `affectlens circuit evidence` does more.

    Attributes:
        placement: Of the model.
        parts: Names in `affectlens.circuits.evidence.parts.PARTS`.
        role: Replies that make the task.
        groups: At most so many of them; fewer than eleven decide nothing for six emotions.
        few_groups: For the parts in which whole circuits, or all units outside, are changed.
        means_role: Replies that units' means are taken of.
        means_scenarios: At most so many scenarios of them.
        counts: Of units taken out; those the circuit has not are left out.
        draws: Random sets of units.
        per_text: How many of them each text is run with.
        shares: Percent of all units left.
        few: Draws of random circuits, where every unit outside them is changed.
        seed: Of the draws.
    """

    placement: Placement = PLACEMENT
    parts: tuple[str, ...] = ("ablation", "faithfulness", "identity")
    role: str = "tune"
    groups: int = 12
    few_groups: int = 4
    means_role: str = "direction"
    means_scenarios: int = 8
    counts: tuple[int, ...] = (64,)
    draws: int = 10
    per_text: int = 1
    shares: tuple[float, ...] = (1.0, 10.0)
    few: int = 2
    seed: int = 0

    def study(self, units: int) -> StudySettings:
        """For a circuit of so many neurons."""
        counts = tuple(n for n in self.counts if n <= units) or (units,)
        per_text = min(self.per_text, self.draws)
        return StudySettings(
            ablation=AblationSettings(
                counts=counts,
                draws=self.draws,
                per_text=per_text,
                others_per_text=1,
                seed=self.seed,
            ),
            faithfulness=FaithfulnessSettings(shares=self.shares, draws=self.few, seed=self.seed),
            identity=IdentitySettings(draws=self.few, seed=self.seed),
        )
