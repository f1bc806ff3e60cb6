"""Where the parts of a model are: on one device, on several, or in memory only while they run.

`accelerate` hooks the modules of a model that is spread out: inputs are sent to where a module is,
and weights that lie in main memory or on the disk are fetched for the length of its call. Between
calls such weights are on PyTorch's meta device, so nothing here or elsewhere may look at them
without `loaded`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


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


def stored(hf: nn.Module, name: str, values: Tensor) -> Tensor:
    """The values of a parameter or buffer, read from wherever it is kept.

    Args:
        hf: The model.
        name: Its full name.
        values: What the model itself holds under it.

    Returns:
        ``values`` itself, or what is kept for it; still on the meta device if nobody keeps it.
    """
    if not values.is_meta:
        return values
    path, _, own = name.rpartition(".")
    hook = _alignment(hf.get_submodule(path))
    kept: Any = None if hook is None else hook.weights_map
    return values if kept is None else kept[own]


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
