"""How two models are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from affectlens.core.errors import DataError, unknown
from affectlens.pipeline.rules import BUDGET, BudgetRule

TEMPLATES = ("tuned", "base")


@dataclass(frozen=True)
class ComparisonSettings:
    """How two models are compared.

    Attributes:
        template: Whose tokenizer and chat template write the texts for both, ``"tuned"`` or
            ``"base"``: both models read the same tokens.
        circuits: Whether to find a circuit in each.
        budget: How many units a circuit has.
        prompts: Neutral ones that influence is measured on.
        penalties: Of the probes; see `affectlens.probes.sweep`.
        folds: Likewise.
        draws: Of every bootstrap.
        splits: Of the groups, for the split-half cosines.
        max_tokens_per_batch: Padded tokens of a forward pass.
        seed: Of everything random.
    """

    template: str = "tuned"
    circuits: bool = True
    budget: BudgetRule = BUDGET
    prompts: int = 8
    penalties: Sequence[float] = (0.001, 0.01, 0.1, 1.0)
    folds: int = 5
    draws: int = 1000
    splits: int = 10
    max_tokens_per_batch: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if self.template not in TEMPLATES:
            raise unknown("template", self.template, TEMPLATES)
        for name in ("prompts", "draws", "splits"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} must be at least 1, not {getattr(self, name)}.")


class ComparisonOptions(TypedDict, total=False):
    """Keywords for `ComparisonSettings`, which says what each does."""

    template: str
    circuits: bool
    budget: BudgetRule
    prompts: int
    penalties: Sequence[float]
    folds: int
    draws: int
    splits: int
    max_tokens_per_batch: int
    seed: int
