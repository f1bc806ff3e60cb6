"""Tasks: a number per text from the model's own probabilities, no judge needed."""

from affectlens.circuits.tasks.carry_over import CarryOver, margins

__all__ = ["CarryOver", "margins"]
