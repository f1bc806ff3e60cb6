"""Watching mixtures in a forward pass, whatever runs their experts, with plain hooks."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from affectlens.models.hooking.scopes import opened, owned
from affectlens.models.mixtures.layout import ExpertCall
from affectlens.models.mixtures.mixture import Mixture, MixtureCall


class Watched:
    """What mixtures did in the pass that runs, by layer. Made by `watching_mixtures`."""

    def __init__(self, mixtures: Mapping[int, Mixture]) -> None:
        self._mixtures = mixtures
        self.routed: dict[int, ExpertCall] = {}
        self.neurons: dict[tuple[int, int], Tensor] = {}
        self.gates: dict[tuple[int, int], Tensor] = {}

    def take(self, layer: int) -> MixtureCall:
        """What the mixture of a layer did, once; for after it has run."""
        mixture = self._mixtures[layer]
        shared: list[tuple[Tensor, Tensor | None]] = []
        for i, one in enumerate(mixture.shared):
            gate = None if one.gate is None else self.gates.pop((layer, i))
            shared.append((self.neurons.pop((layer, i)), gate))
        return MixtureCall(mixture, self.routed.pop(layer), tuple(shared))


@contextmanager
def watching_mixtures(mixtures: Mapping[int, Mixture]) -> Generator[Watched, None, None]:
    """Watch the mixtures of some layers in every forward pass inside the block."""
    watched = Watched(mixtures)
    with opened() as (scope, stack):

        def before(module: nn.Module, hook: Any) -> None:
            handle = module.register_forward_pre_hook(owned(module, scope, hook), with_kwargs=True)
            stack.callback(handle.remove)

        def after(module: nn.Module, hook: Any) -> None:
            handle = module.register_forward_hook(owned(module, scope, hook), with_kwargs=True)
            stack.callback(handle.remove)

        for layer, mixture in mixtures.items():
            after(mixture.experts.source, _routed(watched, layer, mixture))
            for i, one in enumerate(mixture.shared):
                before(one.down, _neurons(watched, (layer, i)))
                if one.gate is not None:
                    after(one.gate, _gate(watched, (layer, i)))
        yield watched


def _routed(watched: Watched, layer: int, mixture: Mixture) -> Any:
    def hook(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        watched.routed[layer] = mixture.experts.seen(args, kwargs, output)

    return hook


def _neurons(watched: Watched, key: tuple[int, int]) -> Any:
    def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        watched.neurons[key] = x.reshape(-1, x.shape[-1])

    return hook


def _gate(watched: Watched, key: tuple[int, int]) -> Any:
    def hook(_module: nn.Module, _args: Any, _kwargs: Any, output: Tensor) -> None:
        watched.gates[key] = torch.sigmoid(output).flatten()

    return hook
