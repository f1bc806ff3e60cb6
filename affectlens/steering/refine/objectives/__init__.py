"""What vectors are refined towards, by name."""

from affectlens.core.registry import Registry
from affectlens.steering.refine.objectives.likelihood import LIKELIHOOD
from affectlens.steering.refine.objectives.objective import Loss, Objective
from affectlens.steering.refine.objectives.reps import REPS

OBJECTIVES = Registry("objective", LIKELIHOOD, REPS)
"""The objectives, the default first."""

__all__ = ["OBJECTIVES", "Loss", "Objective"]
