"""A second module tree over the same weights."""

from __future__ import annotations

import copy
from typing import Any

from affectlens.models.hooking.scopes import stand_in


def same_weights(hf: Any) -> Any:
    """Copy a model's modules, config and buffers, but not its parameters.

    For libraries that rebuild a model in place: what they do to the copy leaves the model alone,
    and no memory is spent on weights. Hooks come along; a parameter changed in one changes in both.
    """
    parameters = {id(parameter): parameter for parameter in hf.parameters()}
    made = copy.deepcopy(hf, parameters)
    stand_in(made, hf)
    return made
