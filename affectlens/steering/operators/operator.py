"""What an operator is: one row, the same for every back end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

PerEmotion = Float[Tensor, "*place emotion"]
Projects = Callable[[PerEmotion, PerEmotion], tuple[PerEmotion, PerEmotion]]


@dataclass(frozen=True)
class Operator:
    """One way to steer.

    A request has a dose for each of its emotions: a vector ``s·v``, of direction ``u`` (the
    emotion's, whatever the sign of ``s``) and signed length ``l``. With ``p = <h, u>``, a hidden
    state ``h`` becomes

    ``h + Σ s·v`` (if the operator adds) ``+ Σ (change·p + shift)·dual(u)`` (if it projects),

    which is then made as long as ``h`` was (if it keeps the norm). ``dual(u)`` is the least change
    of ``h`` that moves the projection on ``u`` by 1 and on the request's other directions by 0.

    Attributes:
        name: What a spec says after ``operator=``.
        help: One line.
        adds: Whether the doses are added.
        projects: What becomes of the projections: from the strengths and the signed lengths of the
            doses, ``change`` and ``shift`` of each emotion, of the same shape and dtype. None if
            they are left alone.
        keeps_norm: Whether hidden states keep their length.
        share: If strengths are shares, without a unit, the largest one; None if they are doses.
        turns: Whether hidden states are turned towards the sum of the doses instead, whose length
            is the angle in quarter turns; see `affectlens.steering.operators.rotate`.
    """

    name: str
    help: str
    adds: bool = False
    projects: Projects | None = None
    keeps_norm: bool = False
    share: float | None = None
    turns: bool = False

    @property
    def served(self) -> bool:
        """Whether a server can do it: its tables hold what is added and projected, no angles."""
        return not self.turns
