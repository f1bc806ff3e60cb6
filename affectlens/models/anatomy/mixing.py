"""Which sublayers mix tokens: found out by changing the first token and looking at the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from affectlens.models.anatomy.sums import ModuleCall, run_again

ROUNDING = {torch.bfloat16: 0.02, torch.float16: 5e-3}
"""Relative change of a token that is put down to rounding, by number format."""

_PAST = ("attention_mask", "past_key_values", "cache_params", "state")


class Mixing:
    """Tells which modules mix tokens; of modules that are built alike, the first is tried.

    A trial runs a module twice more, which reads all its weights. Deep models have few kinds.
    """

    def __init__(self) -> None:
        self._known: dict[Any, bool] = {}

    def __call__(self, module: nn.Module, call: ModuleCall) -> bool:
        """Whether what a module gives at later tokens depends on the first one.

        Args:
            module: A module that has run.
            call: What it did.
        """
        kind = built_as(module)
        if kind not in self._known:
            self._known[kind] = mixes(module, call)
        return self._known[kind]


def built_as(module: nn.Module) -> Any:
    """What two modules have in common that compute the same but for their weights.

    That is the classes of all that is in them, what these are switched to, and the shapes of their
    weights.
    """
    return tuple(
        (
            path,
            type(each),
            tuple((n, v) for n, v in vars(each).items() if isinstance(v, (bool, str))),
            tuple((n, tuple(p.shape)) for n, p in each.named_parameters(recurse=False)),
        )
        for path, each in module.named_modules()
    )


def mixes(module: nn.Module, call: ModuleCall) -> bool:
    """Whether what it gives at later tokens depends on the first one."""

    def moved(value: Tensor) -> Tensor:
        value = value.clone()
        value.view(-1, value.shape[-1])[0] += 1 + value.abs().mean()
        return value

    if call.output is None or not (call.args or call.kwargs):
        return False
    if call.output.is_meta:
        return _given_a_past(call)
    again, now = (run_again(module, call, change) for change in (moved, torch.clone))
    if again is None or now is None:
        return _given_a_past(call)
    width = now.shape[-1]
    others, before = (x.float().reshape(-1, width)[1:] for x in (again, now))
    error = (others - before).norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-12)
    # Experts are run on the tokens they get together, which rounds otherwise when one moves.
    return bool(error.max() > ROUNDING.get(now.dtype, 1e-3))


def _given_a_past(call: ModuleCall) -> bool:
    """Without a trial: whether it is told of other tokens."""
    return any(name in call.kwargs for name in _PAST)
