"""Hooks and `torch.compile`: while hooks are on a model, nothing compiled runs.

Compiled code has the hooks built in that were there when it was traced, and no others. So inside a
block that hooks a model PyTorch is told to run everything as it is written, whatever was compiled
before; nothing is compiled there either, so nothing of the block stays behind. PyTorch knows this
setting for the whole process only: compiled models of other threads run uncompiled meanwhile, with
the same results, only slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from affectlens.models.hooking.scopes import Shared


def _change() -> Callable[[], object]:
    stance = torch.compiler.set_stance("force_eager")
    return lambda: stance.__exit__(None, None, None)


running_eagerly = Shared(_change)
"""While it is open, `torch.compile` is ignored."""


def uncompiled(module: Any) -> Any:
    """The module that `torch.compile` wrapped; any other as it is."""
    while "_orig_mod" in getattr(module, "_modules", {}):
        module = module._modules["_orig_mod"]
    return module
