"""Probes as estimators of scikit-learn: its own checks, and the same numbers as theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import affectlens as al

PRECISION = {
    "check_sample_weight_equivalence_on_dense_data": "it wants 1e-7; weights are found to 1e-4",
}
"""The one check that does not apply, and why."""


def data(k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(90, 6)) * np.logspace(0, 2, 6)
    y = (x @ generator.normal(size=(6, k))).argmax(1)
    y[:k] = np.arange(k)
    return x, np.array(["a", "b", "c", "d"])[y]


@pytest.mark.parametrize("kind", ["LinearProbe", "RidgeProbe"])
def test_scikit_learns_own_checks(kind: str) -> None:
    """`RidgeProbe` is exact and passes all of them."""
    known = PRECISION if kind == "LinearProbe" else {}
    done = check_estimator(getattr(al, kind)(), on_skip=None, expected_failed_checks=known)
    xfail = {one["check_name"] for one in done if one["status"] == "xfail"}
    assert xfail == set(known) and len(done) > 40


@pytest.mark.parametrize("k", [2, 3])
def test_a_linear_probe_is_scaling_and_logistic_regression(k: int) -> None:
    x, y = data(k)
    ours = al.LinearProbe(C=0.1).fit(x, y)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8, max_iter=5000))
    theirs.fit(x, y)
    assert ours.classes_.tolist() == theirs.classes_.tolist()
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-3)
    assert (ours.predict(x) == theirs.predict(x)).all()
    if k == 2:
        np.testing.assert_allclose(
            ours.decision_function(x), theirs.decision_function(x), atol=2e-2
        )
    assert ours.coef_.shape == (k, 6) and ours.intercept_.shape == (k,)
    assert clone(ours).get_params() == {"C": 0.1, "kind": "logistic"}
    folds = {"groups": np.arange(90) // 3, "cv": GroupKFold(3)}
    assert cross_val_score(al.LinearProbe(), x, y, **folds).mean() > 0.6


def test_several_labels_and_one_against_the_rest() -> None:
    x, y = data(4)
    labels = np.stack([x[:, 0] > 0, x[:, 1] + x[:, 2] / 5 > 0], 1).astype(int)
    theirs = OneVsRestClassifier(LogisticRegression(C=0.1, tol=1e-8, max_iter=5000))
    scaled = StandardScaler().fit_transform(x)
    for target in (labels, y):
        ours = al.LinearProbe("one_vs_rest", C=0.1).fit(x, target)
        theirs.fit(scaled, target)
        np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(scaled), atol=1e-3)
        assert (ours.predict(x) == theirs.predict(scaled)).all()


def test_a_ridge_probe_is_scaling_and_ridge() -> None:
    x, _ = data()
    target = np.stack([x.sum(1), x[:, 0] ** 2], 1)
    theirs = make_pipeline(StandardScaler(), Ridge(alpha=2.0)).fit(x, target)
    ours = al.RidgeProbe(C=0.5).fit(x, target)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-6, atol=1e-6)
    one = al.RidgeProbe(C=0.5).fit(x, target[:, 0])
    np.testing.assert_allclose(one.predict(x), theirs.predict(x)[:, 0], rtol=1e-6, atol=1e-6)
    assert one.coef_.shape == (6,) and ours.coef_.shape == (2, 6)


def test_tensors_are_taken_as_they_are() -> None:
    x, y = data()
    by_array = al.LinearProbe("lda").fit(x, y)
    by_tensor = al.LinearProbe("lda").fit(torch.tensor(x), y)
    np.testing.assert_allclose(by_tensor.coef_, by_array.coef_)
    assert (by_tensor.predict(torch.tensor(x)) == by_array.predict(x)).all()
    with pytest.raises(TypeError, match="not linear"):
        al.LinearProbe("mlp").fit(x, y)
