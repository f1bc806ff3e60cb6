"""Watching mixtures in a forward pass, whatever runs their experts, with plain hooks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from affectlens.core.errors import ModelError
from affectlens.models.hooking.scopes import opened, owned
from affectlens.models.mixtures.layout import ExpertCall
from affectlens.models.mixtures.mixture import Mixture, MixtureCall

MixtureReader = Callable[[int, MixtureCall], None]
"""Called with a layer and what its mixture did, once that has run."""


@dataclass(eq=False)
class _Seen:
    """What one mixture has shown in the pass that runs."""

    routed: ExpertCall | None = None
    neurons: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    gates: dict[int, Tensor] = field(default_factory=dict[int, Tensor])


@contextmanager
def watching_mixtures(
    mixtures: Mapping[int, Mixture], read: MixtureReader
) -> Generator[None, None, None]:
    """Read the mixtures of some layers in every forward pass inside the block.

    Args:
        mixtures: By layer.
        read: Gets what each did; rows of it are worked out of tensors of the pass, so take them at
            once.

    Raises:
        ModelError: In a forward pass, if a kernel took the place of a mixture's modules.
    """
    with opened() as (scope, stack):

        def before(module: nn.Module, hook: Any) -> None:
            handle = module.register_forward_pre_hook(owned(module, scope, hook), with_kwargs=True)
            stack.callback(handle.remove)

        def after(module: nn.Module, hook: Any) -> None:
            handle = module.register_forward_hook(owned(module, scope, hook), with_kwargs=True)
            stack.callback(handle.remove)

        for layer, mixture in mixtures.items():
            watch = _Watch(layer, mixture, read)
            after(mixture.experts.source, watch.routed)
            for i, one in enumerate(mixture.shared):
                before(one.down, watch.neurons(i))
                after(one.down, watch.done)
                if one.gate is not None:
                    after(one.gate, watch.gate(i))
            after(mixture.module, watch.done)
        yield


class _Watch:
    """The hooks of one mixture."""

    def __init__(self, layer: int, mixture: Mixture, read: MixtureReader) -> None:
        self._layer, self._mixture, self._read = layer, mixture, read
        self._seen = _Seen()
        # A shared expert within the module ends before it, one beside it may end after it.
        inside = set(mixture.module.modules())
        self._last = {one.down for one in mixture.shared if one.down not in inside}
        self._waiting: set[nn.Module] = set()

    def routed(self, _module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self._seen.routed = self._mixture.experts.seen(args, kwargs, output)

    def neurons(self, i: int) -> Any:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            x: Tensor = args[0] if args else next(iter(kwargs.values()))
            self._seen.neurons[i] = x.reshape(-1, x.shape[-1])

        return hook

    def gate(self, i: int) -> Any:
        def hook(_module: nn.Module, _args: Any, _kwargs: Any, output: Tensor) -> None:
            self._seen.gates[i] = torch.sigmoid(output).flatten()

        return hook

    def done(self, module: nn.Module, _args: Any, _kwargs: Any, _output: Any) -> None:
        ends = {self._mixture.module, *self._last}
        if module not in ends:
            return
        self._waiting = (self._waiting or ends) - {module}
        if self._waiting:
            return
        seen, self._seen = self._seen, _Seen()
        if seen.routed is None or len(seen.neurons) < len(self._mixture.shared):
            raise ModelError(
                f"The mixture of block {self._layer} runs in a kernel that hides its experts; load "
                "the model without it (use_kernels=False)."
            )
        shared = tuple((x, seen.gates.get(i)) for i, x in sorted(seen.neurons.items()))
        self._read(self._layer, MixtureCall(self._mixture, seen.routed, shared))
