"""vLLM's row in the table of servers."""

from __future__ import annotations

from affectlens.serving.contract import ServerKind
from affectlens.serving.vllm.launching import prepare

VLLM = ServerKind("vllm", "vLLM with the plug-in: many requests at once", prepare)
