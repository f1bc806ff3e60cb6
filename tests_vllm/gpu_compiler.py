"""Have vLLM's CPU build compile as it does on GPUs: in pieces, stored on disk, loaded as they
are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def switch_on() -> None:
    """Before an engine is made, in the process that runs the model."""
    from vllm.config import CompilationMode
    from vllm.platforms.cpu import CpuPlatform

    _define_missing_operators()
    check = CpuPlatform.check_and_update_config.__func__

    def check_and_update_config(cls: Any, config: Any) -> None:
        check(cls, config)
        compilation = config.compilation_config
        if compilation.mode == CompilationMode.DYNAMO_TRACE_ONCE:
            compilation.mode = CompilationMode.VLLM_COMPILE
            compilation.backend = "inductor"
            compilation.compile_sizes = []
            compilation.pass_config.fuse_norm_quant = False
            compilation.pass_config.fuse_act_quant = False

    CpuPlatform.check_and_update_config = classmethod(check_and_update_config)


def _define_missing_operators() -> None:
    """One of the passes names GPU operators that the CPU build lacks; it never meets them."""
    import torch
    import vllm._custom_ops
    from vllm.compilation.passes.utility import fix_functionalization

    assert vllm._custom_ops
    source = Path(fix_functionalization.__file__).read_text()
    for space, name in set(re.findall(r"torch\.ops\.(\w+)\.(\w+)\.default", source)):
        if not hasattr(getattr(torch.ops, space), name):
            library = torch.library.Library(space, "FRAGMENT")
            library.define(f"{name}(Tensor a) -> ()")
            _LIBRARIES.append(library)


_LIBRARIES: list[Any] = []
