"""What features of the text alone can do, chosen and scored exactly as a probe is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from affectlens.probes.held_out import HeldOut
from affectlens.sweeps.controls.base import Setting

GRID = (0.1, 1.0, 10.0, 100.0)
"""Values of scikit-learn's C (``1 / alpha`` of ridge) that are tried."""

Array = np.ndarray[Any, Any]


def text_baseline(setting: Setting, features: Callable[[], Any]) -> HeldOut:
    """Fit a linear model on features of the texts, its penalty chosen on the folds.

    Args:
        setting: Whose rows, folds and held-out rows.
        features: Makes what turns texts into features (``fit``, ``transform``); it is fitted on
            fitting rows alone, every time.
    """
    design = setting.design
    texts = [record.text for record in setting.records]
    y, fit, fold = design.y.numpy(), design.fit.numpy(), design.fold.numpy()

    def said(left_out: tuple[int, ...], asked: Array) -> list[Array]:
        """What the fits without some folds say of rows, one for each penalty."""
        mine = np.flatnonzero(fit & ~np.isin(fold, left_out))
        made = features()
        x = made.fit_transform([texts[i] for i in mine])
        other = made.transform([texts[i] for i in asked])
        return [_model(setting, c).fit(x, y[mine]).predict_all(other) for c in GRID]

    outputs = np.zeros((len(y), max(1, len(design.classes))))
    single = {f: np.flatnonzero(fold == f) for f in range(design.folds)}
    alone = {f: said((f,), rows) for f, rows in single.items()}
    if not design.nested:
        best = _best([(alone[f], single[f]) for f in single], y, setting)
        asked = np.flatnonzero(~fit)
        outputs[asked] = said((), asked)[best]
        return setting.outputs(torch.tensor(outputs))
    both: dict[tuple[int, int], dict[int, list[Array]]] = {}
    for a, b in combinations(single, 2):
        rows = np.concatenate([single[a], single[b]])
        parts = said((a, b), rows)
        cut = len(single[a])
        both[a, b] = {a: [p[:cut] for p in parts], b: [p[cut:] for p in parts]}
    for outer, rows in single.items():
        inner = [(both[min(outer, f), max(outer, f)][f], single[f]) for f in single if f != outer]
        outputs[rows] = alone[outer][_best(inner, y, setting)]
    return setting.outputs(torch.tensor(outputs))


def _best(said: Sequence[tuple[list[Array], Array]], y: Array, setting: Setting) -> int:
    """Index of the penalty that is right most often, or wrong least; the strongest of equals."""
    good = np.zeros(len(GRID))
    for parts, rows in said:
        for i, part in enumerate(parts):
            if setting.numbers:
                good[i] -= float(((part[:, 0] - y[rows]) ** 2).sum())
            else:
                good[i] += float((part.argmax(1) == y[rows]).sum())
    return int(good.argmax())


def _model(setting: Setting, c: float) -> _Linear:
    from sklearn.linear_model import LogisticRegression, Ridge

    if setting.numbers:
        return _Linear(Ridge(alpha=1 / c, random_state=0), 1)
    made = LogisticRegression(C=c, max_iter=1000)
    return _Linear(made, len(setting.design.classes))


class _Linear:
    """A model of scikit-learn whose word is one column per class, or one number."""

    def __init__(self, model: Any, outputs: int) -> None:
        self._model, self._outputs = model, outputs

    def fit(self, x: Any, y: Array) -> _Linear:
        self._model.fit(x, y)
        return self

    def predict_all(self, x: Any) -> Array:
        if not hasattr(self._model, "predict_log_proba"):
            return self._model.predict(x)[:, None]
        found = np.full((x.shape[0], self._outputs), -1e9)
        found[:, self._model.classes_] = self._model.predict_log_proba(x)
        return found
