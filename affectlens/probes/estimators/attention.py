"""Attention pooling: a probe that learns which tokens of a text to read.

The text's row is ``sum_t a_t x_t`` with ``a = softmax(<x_t, q>)`` over its tokens, its scores are
``W row + b``. Query and weights are found together by descent on standardised tokens, from
``q = W = 0``: a probe of the mean of all tokens. The penalty on both is ``1 / (2 C n)`` times their
squares beside the mean loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from affectlens.core.errors import DataError
from affectlens.geometry.linear_fit import by_site, check_rows, standardised
from affectlens.probes.estimators.base import ProbeKind
from affectlens.probes.estimators.descent import Descent, descend, drawn_rows

DESCENT = Descent(batch=32, steps=400, rate=1e-2)


@dataclass(frozen=True, eq=False)
class AttentionFit:
    """Fitted probes, in the units of the tokens.

    Attributes:
        query: What tokens are weighed by; a constant added to all of a text's changes nothing.
        weights: Of the pooled row.
        bias: Intercepts.
    """

    query: Float[Tensor, "site resample penalty d"]
    weights: Float[Tensor, "site resample penalty class d"]
    bias: Float[Tensor, "site resample penalty class"]

    @property
    def converged(self) -> Tensor:
        """Whether the weights are finite: descent has no tolerance, only its steps."""
        return self.bias.isfinite().all(-1)

    def logits(
        self, x: Float[Tensor, "site token d"], texts: Int[Tensor, " token"]
    ) -> Float[Tensor, "site resample penalty text class"]:
        """Scores of texts under every fit of their site.

        Args:
            x: Tokens, those of a text together.
            texts: Number of the text of each token, from 0, each with a token.
        """
        shares = self.shares(x, texts)
        # Scores are linear in the row, so tokens are scored before they are added up.
        own = shares[..., None] * (self.token_logits(x) - self.bias[..., None, :])
        many = int(texts.max()) + 1
        pooled = own.new_zeros(*own.shape[:-2], many, own.shape[-1])
        return pooled.index_add(-2, texts.to(x.device), own) + self.bias[..., None, :]

    def token_logits(
        self, x: Float[Tensor, "site token d"]
    ) -> Float[Tensor, "site resample penalty token class"]:
        """What each token would be alone: its scores if all attention lay on it."""
        x = x.to(self.weights.dtype)[:, None, None]
        return x @ self.weights.mT + self.bias[..., None, :]

    def shares(
        self, x: Float[Tensor, "site token d"], texts: Int[Tensor, " token"]
    ) -> Float[Tensor, "site resample penalty token"]:
        """Attention of each token within its text."""
        x = x.to(self.query.dtype)
        score = (x[:, None, None] @ self.query[..., None])[..., 0]
        texts = texts.to(x.device)
        where = texts.expand(score.shape)
        many = int(texts.max()) + 1
        top = score.new_full((*score.shape[:-1], many), -torch.inf)
        top = top.scatter_reduce(-1, where, score, "amax")
        raised = (score - top.gather(-1, where)).exp()
        total = torch.zeros_like(top).scatter_add(-1, where, raised)
        return raised / total.gather(-1, where)

    def parts(self) -> dict[str, Tensor]:
        """All that a file needs to hold."""
        return {"query": self.query, "weights": self.weights, "bias": self.bias}


def restore_attention(parts: Mapping[str, Tensor]) -> AttentionFit:
    """Inverse of `AttentionFit.parts`."""
    return AttentionFit(**parts)


def fit_attention(
    x: Float[Tensor, "site token d"],
    y: Int[Tensor, " text"],
    penalties: Sequence[float] | Float[Tensor, "site penalty"],
    *,
    texts: Int[Tensor, " token"],
    n_classes: int,
    weight: Float[Tensor, "resample text"],
    tol: float = 0.0,
    descent: Descent = DESCENT,
) -> AttentionFit:
    """As `affectlens.probes.estimators.base.Fit`, of tokens.

    Args:
        x: Tokens, those of a text together; sites share texts and labels.
        y: Class of each text.
        penalties, n_classes, tol: As there.
        texts: Number of the text of each token, ascending from 0.
        weight: Of each text per resample.
        descent: How query and weights are found.

    Raises:
        DataError: If a resample lacks a class, a text has no token, or tokens are not finite.
    """
    del tol
    device = x.device
    texts, y = texts.to(device), y.to(device).long()
    count = torch.bincount(texts, minlength=len(y))
    if len(count) != len(y) or not bool((count > 0).all()) or bool((texts.diff() < 0).any()):
        raise DataError(
            f"Tokens of {len(count)} texts were given for {len(y)} labels; every text needs its "
            "tokens together, in the order of the labels, and at least one."
        )
    weight = weight.to(device).float()
    check_rows(x, y[texts], weight[:, texts], n_classes)
    c = by_site(penalties, len(x), device=device)
    place, real = _padded(count)
    chosen = drawn_rows(weight, descent).to(device)
    fits = [
        _fit_site(site.float(), y, own, (texts, place, real, weight, chosen, n_classes), descent)
        for site, own in zip(x, c, strict=True)
    ]
    return AttentionFit(*(torch.stack([fit[i] for fit in fits]) for i in range(3)))


def _padded(
    count: Int[Tensor, " text"],
) -> tuple[Int[Tensor, "text longest"], Bool[Tensor, "text longest"]]:
    """Where the tokens of each text are, and which places hold one."""
    step = torch.arange(int(count.max()), device=count.device)
    real = step < count[:, None]
    return (count.cumsum(0) - count)[:, None] + torch.where(real, step, 0), real


def _fit_site(
    x: Float[Tensor, "token d"],
    y: Int[Tensor, " text"],
    c: Float[Tensor, " penalty"],
    shared: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int],
    descent: Descent,
) -> tuple[Tensor, Tensor, Tensor]:
    texts, place, real, weight, chosen, n_classes = shared
    resamples, d = len(weight), x.shape[1]
    _, mean, scale = standardised(x.expand(resamples, -1, -1), weight[:, texts])
    query = x.new_zeros(resamples, len(c), d).requires_grad_()
    weights = x.new_zeros(resamples, len(c), n_classes, d).requires_grad_()
    bias = x.new_zeros(resamples, len(c), n_classes).requires_grad_()
    decay = 1 / (2 * c * weight.sum(1)[:, None])  # [resample, penalty]

    def loss(step: int) -> Tensor:
        own = chosen[step]  # [resample, batch]
        tokens = (x[place[own]].flatten(1, 2) - mean) / scale  # [resample, batch * longest, d]
        score = (tokens @ query.mT).unflatten(1, place[own].shape[1:])  # [r, batch, longest, p]
        score = score.masked_fill(~real[own][..., None], -torch.inf)
        share = score.softmax(2)
        pooled = torch.einsum("rblp,rbld->rpbd", share, tokens.unflatten(1, place[own].shape[1:]))
        logits = pooled @ weights.mT + bias[:, :, None]
        told = y[own][:, None].expand(logits.shape[:-1])
        each = cross_entropy(logits.flatten(0, -2), told.flatten(), reduction="sum")
        squares = query.square().sum(-1) + weights.square().sum((-2, -1))
        return each / descent.batch + (decay * squares).sum()

    descend([query, weights, bias], loss, len(chosen), descent)
    folded = weights / scale[:, None]
    shift = bias - (folded @ mean[:, None].mT)[..., 0]
    return query / scale, folded, shift


ATTENTION = ProbeKind(
    "attention",
    "reads all tokens of a text and learns which to attend to; found by descent",
    fit_attention,
    tokens=True,
    linear=False,
    restore=restore_attention,
)
