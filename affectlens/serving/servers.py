"""The servers that `affectlens serve` can start."""

from __future__ import annotations

import shutil
from importlib.util import find_spec

from affectlens.core.registry import Registry
from affectlens.serving.contract import ServerKind
from affectlens.serving.local.server import TRANSFORMERS
from affectlens.serving.vllm.server import VLLM

SERVERS: Registry[ServerKind] = Registry("server", VLLM, TRANSFORMERS)
"""Every server that steers."""


def usual_server(python: str | None = None) -> str:
    """The server that is started if none is named: vLLM where it is installed.

    Args:
        python: An interpreter that was named; only vLLM needs one of its own.
    """
    installed = python is not None or find_spec("vllm") is not None or shutil.which("vllm")
    return VLLM.name if installed else TRANSFORMERS.name
