"""Estimators of emotion directions, behind one interface.

Each takes the rows of one site and weights of their groups, many weightings at once (all groups,
halves, bootstraps), and gives one displacement per emotion: its direction is the estimate, its
length the natural dose, that is how far the emotion moves the residual along it.

Those that are linear in the rows can do without them: the weighted sum of each emotion's rows is
enough (`Sums`), and sums can be added up while rows stream by.
"""

from __future__ import annotations

from affectlens.core.registry import Registry
from affectlens.geometry.estimators.base import Displacements, Estimator, Rows, Sums, Weights
from affectlens.geometry.estimators.diff_neutral import DIFF_NEUTRAL
from affectlens.geometry.estimators.diff_rest import DIFF_REST
from affectlens.geometry.estimators.group_centred import GROUP_CENTRED
from affectlens.geometry.estimators.lda import LDA
from affectlens.geometry.estimators.leace import LEACE
from affectlens.geometry.estimators.means import group_centred
from affectlens.geometry.estimators.pca import PCA
from affectlens.geometry.estimators.probe import PROBE

ESTIMATORS: Registry[Estimator] = Registry(
    "estimator", GROUP_CENTRED, DIFF_NEUTRAL, DIFF_REST, PCA, LDA, PROBE, LEACE
)

__all__ = [
    "ESTIMATORS",
    "Displacements",
    "Estimator",
    "Rows",
    "Sums",
    "Weights",
    "group_centred",
]
