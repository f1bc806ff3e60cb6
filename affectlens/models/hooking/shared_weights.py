"""A second module tree over the same weights."""

from __future__ import annotations

import copy
from typing import Any, cast

from affectlens.models.hooking.scopes import stand_in


def same_weights(hf: Any, *, hooks: bool = True) -> Any:
    """Copy a model's modules, config and buffers, but not its parameters.

    For libraries that rebuild a model in place: what they do to the copy leaves the model alone,
    and no memory is spent on weights. A parameter changed in one changes in both.

    Args:
        hf: The model.
        hooks: Whether its hooks come along. Without them the copy neither notices nor is noticed
            by what is steered or read just now.
    """
    memo: dict[int, Any] = {id(parameter): parameter for parameter in hf.parameters()}
    for module in () if hooks else hf.modules():
        for name, value in vars(module).items():
            # Tables alone: a flag put in here would turn every True of the copy into False.
            if isinstance(value, dict) and (name.endswith("_hooks") or "_hooks_" in name):
                memo[id(value)] = type(cast("Any", value))()
    made = copy.deepcopy(hf, memo)
    if hooks:
        stand_in(made, hf)
    return made
