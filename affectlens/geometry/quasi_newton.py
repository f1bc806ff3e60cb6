"""L-BFGS of many problems at once, from any inverse Hessian, in compact form.

With the last steps ``S``, the changes of the gradient along them ``Y`` and ``R`` the upper triangle
of ``S Y'``, the two loops are two triangular systems (Byrd, Nocedal and Schnabel, 1994).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

_HISTORY = 6


class Pairs:
    """The last steps and the changes of the gradient along them, each in the oldest's place.

    A pair that does not count is zero, with 1 as its own product.
    """

    def __init__(self, w: Tensor) -> None:
        self.steps = w.new_zeros(*w.shape[:2], _HISTORY, w[0, 0].numel())
        self.changes = torch.zeros_like(self.steps)
        self.products = torch.eye(_HISTORY, device=w.device).repeat(*w.shape[:2], 1, 1)
        self.order = list(range(_HISTORY))  # oldest first

    def keep(self, left: Tensor) -> None:
        """Go on with some fits."""
        self.steps, self.changes, self.products = (
            t[:, left] for t in (self.steps, self.changes, self.products)
        )

    def add(self, step: Tensor, change: Tensor) -> None:
        """Take in one more."""
        step, change = step.flatten(2), change.flatten(2)
        own = (step * change).sum(-1)
        useful = own > 1e-8 * change.square().sum(-1)
        place = self.order.pop(0)
        self.order.append(place)
        self.steps[:, :, place] = step * useful[..., None]
        self.changes[:, :, place] = change * useful[..., None]
        column = self.changes[:, :, place, None] @ self.steps.mT
        self.products[..., place] = column[:, :, 0]
        self.products[..., place, place] = torch.where(useful, own, 1.0)

    def direction(
        self, gradient: Tensor, inverse: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "site fit class d1"]:
        """Downhill: the inverse Hessian that the pairs and ``inverse`` make, on the gradient."""
        flat = gradient.flatten(2)[:, :, None]
        # Row vectors: a matrix times a column is many times slower in batches.
        along = (flat @ self.steps.mT).mT[:, :, self.order]
        products = self.products[:, :, self.order][..., self.order].triu()
        back = sorted(range(_HISTORY), key=self.order.__getitem__)
        alpha = torch.linalg.solve_triangular(products, along, upper=True)
        inner = inverse((flat - alpha[:, :, back].mT @ self.changes).view_as(gradient))
        right = products.diagonal(dim1=2, dim2=3)[..., None] * alpha
        changed = (inner.flatten(2)[:, :, None] @ self.changes.mT).mT
        right = right - changed[:, :, self.order]
        beta = torch.linalg.solve_triangular(products.mT, right, upper=False)
        return -(inner + (beta[:, :, back].mT @ self.steps).view_as(gradient))
