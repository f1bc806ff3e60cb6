"""The same interventions in TransformerLens and in nnsight.

Their own hooks and traces run what `intervening` runs, so an experiment written with one tool can
be held against the other. Both go by TransformerLens hook names, which interventions have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.interventions.base import Intervention
from affectlens.core.errors import DataError
from affectlens.core.places import POINTS
from affectlens.models.hooking.hooks import written_module

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

Hook = Callable[..., Tensor]


def transformer_lens_hooks(interventions: Sequence[Intervention]) -> list[tuple[str, Hook]]:
    """As ``fwd_hooks`` of ``TransformerBridge.run_with_hooks``.

    TransformerLens shows heads apart, ``[batch, pos, head, d_head]``; interventions have them side
    by side.

    Raises:
        DataError: If there is none.
    """
    _require(interventions)

    def hook_of(intervention: Intervention) -> Hook:
        def hook(value: Tensor, hook: Any = None) -> Tensor:  # noqa: ARG001, TransformerLens's name
            return intervention(value.flatten(2)).reshape(value.shape)

        return hook

    return [(one.at.hook_name, hook_of(one)) for one in interventions]


def intervene_in_trace(
    root: Any, model: LanguageModel, interventions: Sequence[Intervention], shape: Sequence[int]
) -> None:
    """Make interventions inside a ``with root.trace(...)`` block of nnsight.

    Args:
        root: nnsight's view of the model, `NnsightEngine.root` for one.
        model: The model that the interventions are for.
        interventions: In any order; nnsight wants them in that of the pass.
        shape: Batch and tokens of the pass.

    Raises:
        DataError: If there is none.
        UnknownNameError: If the model lacks a place.
    """
    _require(interventions)
    names = {module: name for name, module in model.hf.named_modules()}
    points = {one.at for one in interventions}
    for at in sorted(points, key=lambda point: (point.layer, POINTS.index(point.point))):
        envoy = root.get(names[written_module(model.anatomy, at)])
        changes = [one for one in interventions if one.at == at]
        if at.place.side == "input":
            envoy.input = _changed(changes, envoy.input, shape)
        else:
            output = envoy.output
            if isinstance(output, tuple):
                envoy.output = (_changed(changes, output[0], shape), *output[1:])
            else:
                envoy.output = _changed(changes, output, shape)


def _changed(
    changes: Sequence[Intervention], value: Tensor, shape: Sequence[int]
) -> Float[Tensor, ...]:
    whole = value.reshape(*shape, -1)  # some blocks make one axis of batch and position
    for change in changes:
        whole = change(whole)
    return torch.reshape(whole, value.shape)


def _require(interventions: Sequence[Intervention]) -> None:
    if not interventions:
        raise DataError("There is no intervention to make; give at least one.")
