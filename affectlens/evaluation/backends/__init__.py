"""Where replies are generated: in this process, by processes of a cluster, or by a server.

All get the same token ids, the same decoding and the same vectors, and give token ids back, so that
everything after them (text, perplexity, judges) is the same.
"""

from __future__ import annotations

from affectlens.core.registry import Registry
from affectlens.evaluation.backends.base import Advance, Backend, BackendKind, BackendRequest, Ids
from affectlens.evaluation.backends.in_process import TRANSFORMERS, Transformers
from affectlens.evaluation.backends.ray_workers import RAY
from affectlens.evaluation.backends.vllm_client import Vllm
from affectlens.evaluation.backends.vllm_server import VLLM

BACKENDS: Registry[BackendKind] = Registry("back end", TRANSFORMERS, VLLM, RAY)
"""Every back end that arms can be generated with."""

__all__ = [
    "BACKENDS",
    "TRANSFORMERS",
    "Advance",
    "Backend",
    "BackendKind",
    "BackendRequest",
    "Ids",
    "Transformers",
    "Vllm",
]
