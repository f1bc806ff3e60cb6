"""Figures of the local server for Prometheus, beside those that every steering server has."""

from __future__ import annotations

from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from affectlens.serving.local.engine import Engine
from affectlens.serving.metrics import Metrics

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class LocalMetrics:
    """Counters, gauges and times of one server.

    Attributes:
        steering: Those of every server that steers.

    Args:
        engine: Asked when somebody looks.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.steering = Metrics(self._registry)
        kept: Any = {"registry": self._registry}
        self._replies = Counter(
            "affectlens_replies", "Replies that were begun, by how they ended.", ["end"], **kept
        )
        self._running = Gauge("affectlens_replies_running", "Replies being written.", **kept)
        self._waiting = Gauge("affectlens_replies_waiting", "Replies that wait.", **kept)
        self._tokens = Counter("affectlens_tokens", "Tokens generated.", **kept)
        self._first = Histogram(
            "affectlens_first_token_seconds",
            "From a request to its first token.",
            buckets=_SECONDS,
            **kept,
        )
        self._whole = Histogram(
            "affectlens_reply_seconds", "From a request to its end.", buckets=_SECONDS, **kept
        )
        self._seen = 0

    def ended(self, how: str, seconds: float) -> None:
        """A reply ended: ``stop``, ``length``, ``failed`` or ``cancelled``."""
        self._replies.labels(how).inc()
        self._whole.observe(seconds)

    def began(self, seconds: float) -> None:
        """A request has its first token."""
        self._first.observe(seconds)

    def text(self) -> bytes:
        """All of them, in Prometheus's format."""
        state = self._engine.state()
        self._running.set(state["running"])
        self._waiting.set(state["waiting"])
        self._tokens.inc(max(0, state["tokens"] - self._seen))
        self._seen = max(self._seen, state["tokens"])
        self.steering.workers([state])
        return generate_latest(self._registry)
