"""Interventions: what a model does when some of its values are others."""

from __future__ import annotations

from affectlens.circuits.interventions.base import Change, Intervention, Kind
from affectlens.circuits.interventions.donors import (
    GROUP_MEAN,
    MEAN_BY_POSITION,
    PATCH,
    RESAMPLE,
    donor_values,
    group_mean,
    mean_by_position,
    patch,
    resample,
)
from affectlens.circuits.interventions.edges import Edge, patching_edges
from affectlens.circuits.interventions.elsewhere import (
    intervene_in_trace,
    transformer_lens_hooks,
)
from affectlens.circuits.interventions.erase import ERASE, erase
from affectlens.circuits.interventions.intervening import heads, intervening, neurons
from affectlens.circuits.interventions.project import CLAMP, PROJECT_OUT, clamp, project_out
from affectlens.circuits.interventions.receivers import Receiver, receivers
from affectlens.circuits.interventions.replace import REPLACE, replace
from affectlens.circuits.interventions.scale import SCALE, scale
from affectlens.circuits.interventions.shift import ADD, add
from affectlens.circuits.interventions.zero import ZERO, zero
from affectlens.core.registry import Registry

INTERVENTIONS: Registry[Kind] = Registry(
    "intervention",
    ZERO,
    REPLACE,
    MEAN_BY_POSITION,
    GROUP_MEAN,
    RESAMPLE,
    PATCH,
    ADD,
    SCALE,
    CLAMP,
    PROJECT_OUT,
    ERASE,
)

__all__ = [
    "INTERVENTIONS",
    "Change",
    "Edge",
    "Intervention",
    "Kind",
    "Receiver",
    "add",
    "clamp",
    "donor_values",
    "erase",
    "group_mean",
    "heads",
    "intervene_in_trace",
    "intervening",
    "mean_by_position",
    "neurons",
    "patch",
    "patching_edges",
    "project_out",
    "receivers",
    "replace",
    "resample",
    "scale",
    "transformer_lens_hooks",
    "zero",
]
