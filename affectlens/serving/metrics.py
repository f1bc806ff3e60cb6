"""Figures of a server that steers, in its ``/metrics``: names that start with ``affectlens_``.

What the front door sees is counted in the process that serves clients. What workers know (tokens,
slots) lives in other processes and is fetched when somebody looks; see `endpoints`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any


class Metrics:
    """Counters and gauges of one process.

    Args:
        registry: Where they are shown; None for the one that vLLM shows.
    """

    def __init__(self, registry: Any = None) -> None:
        client: Any = importlib.import_module("prometheus_client")
        registry = client.REGISTRY if registry is None else registry
        counter = functools.partial(client.Counter, registry=registry)
        gauge = functools.partial(client.Gauge, registry=registry, multiprocess_mode="mostrecent")
        self._steered = counter(
            "affectlens_requests_steered", "Requests admitted to be steered, by pack.", ["pack"]
        )
        self._read = counter(
            "affectlens_requests_read",
            "Requests admitted to be read, by pack.",
            ["pack"],
        )
        self._refused = counter(
            "affectlens_requests_refused", "Requests refused by the front door."
        )
        self._tokens = counter("affectlens_tokens_steered", "Tokens computed under steering.")
        self._slots = gauge("affectlens_slots_in_use", "Differently steered requests that run.")
        self._capacity = gauge("affectlens_slots", "Most of them at once.")
        self._packs = gauge("affectlens_packs_loaded", "Packs that requests can name.")
        self._seen = 0

    def admitted(self, pack: str, *, steered: bool, read: bool) -> None:
        """The front door let a request in."""
        if steered:
            self._steered.labels(pack).inc()
        if read:
            self._read.labels(pack).inc()

    def refused(self) -> None:
        """The front door did not."""
        self._refused.inc()

    def packs(self, count: int) -> None:
        """So many packs are loaded."""
        self._packs.set(count)

    def workers(self, states: Sequence[Mapping[str, Any]]) -> None:
        """What the workers said; ranks of one model do the same work, so one speaks for all."""
        if not states:
            return
        tokens = max(int(state["steered_tokens"]) for state in states)
        self._tokens.inc(max(0, tokens - self._seen))
        self._seen = tokens
        self._slots.set(max(int(state["slots_in_use"]) for state in states))
        self._capacity.set(max(int(state["slots"]) for state in states))


@functools.cache
def metrics() -> Metrics | None:
    """Those of this process, made on first use (vLLM sets its registry up first)."""
    try:
        return Metrics()
    except ImportError:  # requests are understood without it all the same
        return None
