"""The two-layer probe of "Decoding Emotion in the Deep" (arXiv 2510.04064): ReLU, then classes.

The paper trains one pass of Adam at 1e-4 over 434,000 texts, with 10 % warm-up and a fall by
cosine; it does not state width or batch. On corpora of a few hundred texts one pass teaches
nothing, so there are at least `Descent.steps` steps here, at a rate of 1e-3. Features are
standardised; the penalty is ``1 / (2 C n) (||W1||^2 + ||W2||^2)`` beside the mean loss, as of
scikit-learn's ``MLPClassifier(alpha=1 / C)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from affectlens.geometry.linear_fit import by_site, check_rows, standardised
from affectlens.probes.estimators.base import ProbeKind
from affectlens.probes.estimators.descent import Descent, descend, drawn_rows

WIDTH = 128
DESCENT = Descent()
_NUMBERS_AT_ONCE = 1 << 24  # weights of the problems of one descent


@dataclass(frozen=True, eq=False)
class MLPFit:
    """Fitted probes, standardisation folded into the first layer.

    Attributes:
        inner: First layer.
        inner_bias: Its intercepts.
        outer: Second layer.
        outer_bias: Its intercepts.
    """

    inner: Float[Tensor, "site resample penalty d hidden"]
    inner_bias: Float[Tensor, "site resample penalty hidden"]
    outer: Float[Tensor, "site resample penalty hidden class"]
    outer_bias: Float[Tensor, "site resample penalty class"]

    @property
    def converged(self) -> Tensor:
        """Whether the weights are finite: descent has no tolerance, only its steps."""
        return self.outer_bias.isfinite().all(-1)

    def logits(
        self, x: Float[Tensor, "site n d"]
    ) -> Float[Tensor, "site resample penalty n class"]:
        """Scores of rows under every fit of their site."""
        x = x.to(self.inner.dtype)
        _, resamples, penalties = self.inner.shape[:3]
        rows = [
            torch.stack([self._one(x, r, p) for p in range(penalties)], 1) for r in range(resamples)
        ]
        return torch.stack(rows, 1)

    def _one(self, x: Tensor, r: int, p: int) -> Float[Tensor, "site n class"]:
        hidden = (x @ self.inner[:, r, p] + self.inner_bias[:, r, p, None]).relu()
        return hidden @ self.outer[:, r, p] + self.outer_bias[:, r, p, None]

    def parts(self) -> dict[str, Tensor]:
        """All that a file needs to hold."""
        names = ("inner", "inner_bias", "outer", "outer_bias")
        return {name: getattr(self, name) for name in names}


def restore_mlp(parts: Mapping[str, Tensor]) -> MLPFit:
    """Inverse of `MLPFit.parts`."""
    return MLPFit(**parts)


def fit_mlp(
    x: Float[Tensor, "site n d"],
    y: Int[Tensor, " n"],
    penalties: Sequence[float] | Float[Tensor, "site penalty"],
    *,
    n_classes: int,
    weight: Float[Tensor, "resample n"],
    tol: float = 0.0,
    descent: Descent = DESCENT,
    width: int = WIDTH,
) -> MLPFit:
    """See `affectlens.probes.estimators.base.Fit`; ``tol`` plays no part, steps are counted.

    Args:
        x, y, penalties, n_classes, weight, tol: As there.
        descent: How the weights are found.
        width: Hidden units.
    """
    del tol
    check_rows(x, y, weight, n_classes)
    c = by_site(penalties, len(x), device=x.device)
    weight = weight.float().to(x.device)
    chosen = drawn_rows(weight, descent).to(x.device)
    size = len(weight) * c.shape[1] * x.shape[2] * width
    chunk = max(1, _NUMBERS_AT_ONCE // size)
    parts = [
        _fit_sites(
            x[i : i + chunk].float(),
            y.to(x.device).long(),
            c[i : i + chunk],
            (chosen, weight, n_classes, width),
            descent,
        ).parts()
        for i in range(0, len(x), chunk)
    ]
    return MLPFit(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _fit_sites(
    x: Float[Tensor, "site n d"],
    y: Int[Tensor, " n"],
    c: Float[Tensor, "site penalty"],
    shared: tuple[Int[Tensor, "step resample batch"], Float[Tensor, "resample n"], int, int],
    descent: Descent,
) -> MLPFit:
    chosen, weight, n_classes, width = shared
    sites, d, resamples, penalties = len(x), x.shape[2], len(weight), c.shape[1]
    _, mean, scale = zip(*(standardised(x, w.expand(sites, -1)) for w in weight), strict=True)
    mean, scale = torch.stack(mean, 1), torch.stack(scale, 1)  # [site, resample, 1, d]
    problems = (sites, resamples, penalties)
    inner = _begin(d, width, problems, descent.seed).to(x.device).requires_grad_()
    outer = _begin(width, n_classes, problems, descent.seed + 1).to(x.device).requires_grad_()
    inner_bias = x.new_zeros(*problems, width).requires_grad_()
    outer_bias = x.new_zeros(*problems, n_classes).requires_grad_()
    decay = 1 / (2 * c[:, None] * weight.sum(1)[None, :, None])  # [site, resample, penalty]

    def loss(step: int) -> Tensor:
        rows = (x[:, chosen[step]] - mean) / scale  # [site, resample, batch, d]
        hidden = (rows[:, :, None] @ inner + inner_bias[..., None, :]).relu()
        logits = hidden @ outer + outer_bias[..., None, :]
        told = y[chosen[step]][None, :, None].expand(logits.shape[:-1])
        each = cross_entropy(logits.flatten(0, -2), told.flatten(), reduction="sum")
        squares = inner.square().sum((-2, -1)) + outer.square().sum((-2, -1))
        return each / descent.batch + (decay * squares).sum()

    descend([inner, inner_bias, outer, outer_bias], loss, len(chosen), descent)
    folded = inner / scale[:, :, None].mT
    bias = inner_bias - (mean[:, :, None] @ folded)[..., 0, :]
    return MLPFit(folded, bias, outer, outer_bias)


def _begin(into: int, out: int, problems: tuple[int, ...], seed: int) -> Tensor:
    """The same weights for every problem, uniform as scikit-learn draws them (Glorot)."""
    generator = torch.Generator().manual_seed(seed)
    bound = (6 / (into + out)) ** 0.5
    drawn = (torch.rand(into, out, generator=generator) * 2 - 1) * bound
    return drawn.expand(*problems, -1, -1).clone()


MLP = ProbeKind(
    "mlp",
    "two layers with ReLU (arXiv 2510.04064), found by descent; not linear",
    fit_mlp,
    linear=False,
    restore=restore_mlp,
)
