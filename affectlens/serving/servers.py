"""The servers that `affectlens serve` can start."""

from __future__ import annotations

from affectlens.core.registry import Registry
from affectlens.serving.contract import ServerKind
from affectlens.serving.vllm.server import VLLM

SERVERS: Registry[ServerKind] = Registry("server", VLLM)
"""Every server that steers, the default first."""
