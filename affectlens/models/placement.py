"""Where the parts of a model are: on one device, on several, or in memory only while they run.

`accelerate` hooks the modules of a model that is spread out: inputs are sent to where a module is,
and weights that lie in main memory or on the disk are fetched for the length of its call. Between
calls such weights are on PyTorch's meta device, so nothing here or elsewhere may look at them
without `loaded`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from affectlens.core.errors import DataError, UnknownNameError, unknown
from affectlens.models.devices import pick_device
from affectlens.models.quantisers import quantisation

STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
"""Ways in which accelerate spreads a model by itself."""


class SpreadOptions(TypedDict, total=False):
    """The fields of `Spread` as keywords."""

    device_map: str | Mapping[str, Any] | None
    max_memory: Mapping[Any, Any] | None
    offload_folder: str | Path | None
    quantization_config: Any


@dataclass(frozen=True)
class Spread:
    """How a model is made to fit when it is loaded: over devices, memory and disk, or quantised.

    Attributes:
        device_map: One of :data:`STRATEGIES`, a device for everything, or a device (``"disk"``
            among them) for each module by name; None for one device, unspread.
        max_memory: Most that each device may hold, by device (``0``, ``"cpu"``), in bytes or as
            text (``"20GiB"``).
        offload_folder: Where weights go that are kept on the disk and cannot be read from the
            checkpoint itself.
        quantization_config: Quantises while loading: a name of
            `affectlens.models.quantisers.QUANTISERS` (``"int8"``, ``"bnb4"``), or a config of
            transformers, for example ``BitsAndBytesConfig(load_in_4bit=True)``. Checkpoints that
            are quantised need none.
    """

    device_map: str | Mapping[str, Any] | None = None
    max_memory: Mapping[Any, Any] | None = None
    offload_folder: str | Path | None = None
    quantization_config: Any = None

    def options(self) -> dict[str, Any]:
        """What ``from_pretrained`` of transformers is given; empty for a model on one device.

        Raises:
            UnknownNameError: If there is no such strategy or quantiser, or a device does not exist.
            ModelError: If what a quantiser needs is not installed.
            DataError: If memory or a folder is given without a map.
        """
        given: dict[str, Any] = {}
        if self.quantization_config is not None:
            given["quantization_config"] = quantisation(self.quantization_config)
        if self.device_map is None:
            if self.max_memory is not None or self.offload_folder is not None:
                raise DataError(
                    "max_memory and offload_folder say how to spread a model; give a device_map "
                    "too, 'auto' for example."
                )
            return given
        spread: Any = self.device_map
        if isinstance(spread, str):
            if spread not in STRATEGIES:
                spread = {"": _device(spread, [*STRATEGIES])}
        else:
            spread = {name: _device(place, ["disk"]) for name, place in spread.items()}
        folder = None if self.offload_folder is None else str(self.offload_folder)
        given |= {"max_memory": self.max_memory, "offload_folder": folder}
        return {"device_map": spread, **{k: v for k, v in given.items() if v is not None}}


def _device(place: Any, besides: list[str]) -> Any:
    if place in besides:
        return place
    name = f"cuda:{place}" if isinstance(place, int) else str(place)
    try:
        return str(pick_device(name))
    except UnknownNameError:
        count = torch.cuda.device_count()
        here = ["cpu", *(f"cuda:{i}" for i in range(count)), *besides]
        raise unknown("device of the device map", name, here) from None


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes: its weights' device, or where they are fetched to.

    A module without weights of its own gives the device of the first one below it; without any,
    the CPU.
    """
    for each in module.modules():
        for values in (*each.parameters(recurse=False), *each.buffers(recurse=False)):
            if not values.is_meta:
                return values.device
            there = _execution_device(each)
            return values.device if there is None else there
    return torch.device("cpu")


def is_spread(hf: nn.Module) -> bool:
    """Whether a model's modules are on several devices, or any of its weights are offloaded."""
    return any(_alignment(module) is not None for module in hf.modules())


def offloaded(module: nn.Module) -> Iterator[tuple[nn.Module, Any]]:
    """Modules whose weights are fetched for each call, with the hook of accelerate that does so."""
    for each in module.modules():
        hook = _alignment(each)
        if hook is not None and hook.offload:
            yield each, hook


@contextmanager
def loaded(module: nn.Module) -> Generator[None, None, None]:
    """Keep the offloaded weights of a module, and of all below it, in memory inside the block.

    Calls inside use the weights as they are there, so these can be replaced for a call
    (`torch.func.functional_call`). Does nothing for modules that are in memory anyway.
    """
    with ExitStack() as stack:
        for each, hook in list(offloaded(module)):
            hook.pre_forward(each)
            stack.callback(hook.post_forward, each, None)
            stack.enter_context(_unhooked(each))
        yield


def kept_elsewhere(hf: nn.Module) -> dict[int, Callable[[], Tensor]]:
    """How to read each offloaded parameter from where it is kept, by the parameter's ``id``."""
    return {
        id(values): partial(hook.weights_map.__getitem__, name)
        for module, hook in offloaded(hf)
        for name, values in module.named_parameters(recurse=False)
        if values.is_meta
    }


def own_forward(module: nn.Module) -> bool:
    """Whether a module computes what its class says, accelerate's sending to and fro aside."""
    below: Any = vars(module).get("forward")
    if below is not None and _alignment(module) is not None:
        below = vars(module).get("_old_forward")
    return below is None or getattr(below, "__func__", None) is type(module).forward


@contextmanager
def _unhooked(module: Any) -> Generator[None, None, None]:
    """Call a module as it was before accelerate hooked it."""
    hooked = module.forward
    module.forward = module._old_forward
    try:
        yield
    finally:
        module.forward = hooked


def _alignment(module: nn.Module) -> Any:
    """Accelerate's hook that sends inputs or fetches weights; None if there is none."""
    hook: Any = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", (hook,)):  # several are kept in one that calls them in turn
        if hasattr(each, "execution_device") and hasattr(each, "weights_map"):
            return each
    return None


def _execution_device(module: nn.Module) -> torch.device | None:
    hook = _alignment(module)
    if hook is None or hook.execution_device is None:
        return None
    device = hook.execution_device
    return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
