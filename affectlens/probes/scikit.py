"""Probes as scikit-learn's estimators: the same fits, one problem at a time."""

from __future__ import annotations

from typing import Any, Self, cast

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    _check_sample_weight,  # pyright: ignore[reportPrivateUsage]
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from affectlens.geometry.linear_fit import LinearFit
from affectlens.probes.calibration.base import linked
from affectlens.probes.estimators import LABELS, PROBES
from affectlens.probes.estimators.ridge import fit_ridge

Array = np.ndarray[Any, np.dtype[Any]]
_TOL = 1e-4
_NONE = "no_validation"


class LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear probe of one site, with scikit-learn's conventions.

    Features are standardised inside; `coef_` and `intercept_` are of the raw ones. Tensors are
    computed with where they lie, arrays on the CPU. Labels of several per row are 0 or 1 per
    column, for ``kind="one_vs_rest"``.

    Args:
        kind: A linear kind of `affectlens.probes.PROBES`.
        C: Inverse strength of the L2 penalty.
    """

    def __init__(self, kind: str = "logistic", C: float = 1.0) -> None:
        self.kind = kind
        self.C = C

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit on rows ``[n, d]`` and their classes (or labels ``[n, label]``).

        Raises:
            UnknownNameError: If there is no such kind.
            DataError: If it is not linear, or rows lack a class.
        """
        kind = PROBES[self.kind]
        x, labels = _rows(self, X, y, multi=LABELS in kind.targets)
        weight = _weights(sample_weight, x)
        several = labels.ndim == 2
        if several:
            self.classes_ = np.arange(labels.shape[1])
            told: Tensor = torch.as_tensor(labels).float()
        else:
            check_classification_targets(labels)
            used = weight[0].cpu().numpy() > 0
            self.classes_ = np.unique(labels[used])
            told = torch.as_tensor(np.searchsorted(self.classes_, labels))
            told = told.clamp_max(len(self.classes_) - 1)
        if len(self.classes_) < 2 and not several:
            raise ValueError(
                f"A probe needs at least two classes, and all rows are of one class, "
                f"{self.classes_[0]!r}."
            )
        n = len(self.classes_)
        found = kind.fit(x[None], told, (self.C,), n_classes=n, weight=weight, tol=_TOL)
        if not isinstance(found, LinearFit):
            raise TypeError(f"The probe {self.kind} is not linear; fit it with al.fit_probe.")
        self.coef_, self.intercept_ = _arrays(found)
        self.multilabel_ = several
        return self

    def decision_function(self, X: Any) -> Array:
        """Scores: ``[n, class]``, or of two classes the second's less the first's, ``[n]``."""
        scores = self._scores(X)
        if len(self.classes_) == 2 and not self.multilabel_:
            return scores[:, 1] - scores[:, 0]
        return scores

    def predict_proba(self, X: Any) -> Float[Array, "n class"]:
        """Probabilities as the scores claim them; calibrate before they are believed."""
        scores = torch.from_numpy(self._scores(X)).double()
        return linked(scores, PROBES[self.kind].link, not self.multilabel_).numpy()

    def predict(self, X: Any) -> Array:
        """The likeliest class of each row; of labels 0 or 1 per column."""
        scores = self._scores(X)
        if self.multilabel_:
            return (scores > 0).astype(int)
        return self.classes_[scores.argmax(1)]

    def _scores(self, X: Any) -> Float[Array, "n class"]:
        check_is_fitted(self)
        x, _ = _rows(self, X)
        weights = torch.as_tensor(self.coef_).to(x)
        return (x @ weights.T + torch.as_tensor(self.intercept_).to(x)).cpu().numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = (
            self.kind in PROBES and LABELS in PROBES[self.kind].targets
        )
        return tags


class RidgeProbe(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A probe of numbers (valence, an intensity) by least squares with an L2 penalty.

    Features are standardised inside; `coef_` and `intercept_` are of the raw ones.

    Args:
        C: Inverse strength of the penalty, ``1 / alpha`` of scikit-learn's ``Ridge``.
    """

    def __init__(self, C: float = 1.0) -> None:
        self.C = C

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit on rows ``[n, d]`` and one number each, or several ``[n, target]``."""
        x, numbers = _rows(self, X, y, multi=True, numeric=True)
        weight = _weights(sample_weight, x)
        told = torch.as_tensor(numbers).double().reshape(len(x), -1)
        found = fit_ridge(x[None], told, (self.C,), n_classes=told.shape[1], weight=weight)
        self.coef_, self.intercept_ = _arrays(found)
        self.single_ = numbers.ndim == 1
        if self.single_:
            self.coef_, self.intercept_ = self.coef_[0], self.intercept_[0]
        return self

    def predict(self, X: Any) -> Array:
        """The number of each row, ``[n]`` or ``[n, target]``."""
        check_is_fitted(self)
        x, _ = _rows(self, X)
        weights = torch.as_tensor(self.coef_).to(x)
        return (x @ weights.T + torch.as_tensor(self.intercept_).to(x)).cpu().numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags


def _rows(
    estimator: Any, X: Any, y: Any = _NONE, *, multi: bool = False, numeric: bool = False
) -> tuple[Float[Tensor, "n d"], Array]:
    """Rows in floating point where they lie; and, to fit on, what is known of them."""
    fitting = not (isinstance(y, str) and y == _NONE)
    if isinstance(X, Tensor):
        if fitting:
            estimator.n_features_in_ = X.shape[1]
        known = y.cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
        return (X if X.is_floating_point() else X.float()), known
    kinds = [np.float64, np.float32]
    if not fitting:
        return torch.tensor(validate_data(estimator, X, dtype=kinds, reset=False)), np.empty(0)
    rows, known = validate_data(estimator, X, y, dtype=kinds, multi_output=multi, y_numeric=numeric)
    several = multi and not numeric and np.ndim(known) == 2
    if several and type_of_target(known) != "multilabel-indicator":
        raise ValueError("Labels of several per row are 0 or 1 in each column.")
    return torch.tensor(rows), cast("Array", known)


def _weights(sample_weight: Any, x: Tensor) -> Float[Tensor, "1 n"]:
    if sample_weight is None:
        return torch.ones(1, len(x), device=x.device)
    if isinstance(sample_weight, Tensor):
        return sample_weight.to(x.device).reshape(1, -1)
    # Only its length counts of the rows.
    weight = _check_sample_weight(sample_weight, np.zeros((len(x), 1)), ensure_non_negative=True)
    return torch.as_tensor(weight, device=x.device).reshape(1, -1)


def _arrays(found: LinearFit) -> tuple[Array, Array]:
    parts = (found.weights[0, 0, 0], found.bias[0, 0, 0])
    return tuple(part.detach().cpu().numpy() for part in parts)  # type: ignore[return-value]
