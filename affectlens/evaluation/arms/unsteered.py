"""The arm that all others are relative to."""

from __future__ import annotations

from affectlens.evaluation.arms.base import ArmKind

UNSTEERED = ArmKind("unsteered", "unsteered", "the model as it is")
