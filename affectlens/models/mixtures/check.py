"""Do the parts of a mixture add up to what it gives? Seen in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from affectlens.models.hooking.values import first_output
from affectlens.models.mixtures.mixture import Mixture, MixtureCall
from affectlens.models.mixtures.watching import watching_mixtures


def recomposed(call: MixtureCall) -> Tensor:
    """What a mixture adds to each token, from its neurons, gates and weights: ``[token, d_model]``.

    The expensive way, in fp32; it holds what the model computed against what its parts say.
    """
    mixture, tokens = call.mixture, torch.arange(len(call.routed.hidden), device=call.device)
    total = mixture.written(call.rows(tokens, None))
    bias, shared = mixture.b_down(), mixture.shared_bias()
    if bias is not None:
        total = total + call.routed.weights.float() @ bias
    return total if shared is None else total + shared


@contextmanager
def checking_mixtures(
    mixtures: Mapping[int, Mixture],
) -> Generator[Mapping[int, float], None, None]:
    """In the forward pass inside, hold each mixture's output against its parts.

    Yields:
        The relative error of each layer's, filled as they run.
    """
    errors: dict[int, float] = {}
    given: dict[tuple[int, nn.Module], Tensor] = {}
    own: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, _args: Any, output: Any) -> None:
            value = first_output(output)
            given[layer, module] = value.detach().reshape(-1, value.shape[-1]).float()

        return hook

    def read(layer: int, call: MixtureCall) -> None:
        own[layer] = recomposed(call)

    with ExitStack() as stack:
        parts: dict[int, list[nn.Module]] = {}
        for layer, mixture in mixtures.items():
            inside = set(mixture.module.modules())
            beside = [one.down for one in mixture.shared if one.down not in inside]
            parts[layer] = [mixture.module, *beside]
            for module in parts[layer]:
                stack.callback(module.register_forward_hook(keep(layer)).remove)
        with watching_mixtures(mixtures, read):
            yield errors
        for layer, modules in parts.items():
            if layer in own:
                there = torch.stack([given[layer, module] for module in modules]).sum(0)
                errors[layer] = float((own[layer] - there).norm() / there.norm().clamp_min(1e-12))
