"""Which requests that use a pack are under way, so that it is not taken from under them.

vLLM's output processor knows every request from the moment before it is sent to the engine until
it has finished or was cancelled. That is also the last gate: what passes it is counted, and what
comes after a pack was closed does not pass.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

from affectlens.serving.contract import KEY
from affectlens.serving.request_fields import CACHE_KEY, Asked, extra_args
from affectlens.serving.vllm.front_door import Refused

_SLACK = 64


@dataclass
class InFlight:
    """Requests of one front-end process.

    Attributes:
        packs: Request to the pack it uses; may name some that have ended.
        closed: Packs that are being unloaded.
    """

    packs: dict[str, str] = field(default_factory=dict[str, str])
    closed: set[str] = field(default_factory=set[str])

    @classmethod
    def of(cls, output_processor: Any) -> InFlight:
        """Of a front end, made on first use."""
        return vars(output_processor).setdefault("_affectlens_inflight", cls())

    def enter(self, request: str, asked: Asked, running: Any) -> None:
        """Note a request that is about to be sent to the engine.

        Raises:
            Refused: If its pack is being unloaded.
        """
        if asked.pack in self.closed:
            raise Refused(f"Pack {asked.pack} is being unloaded.")
        if len(self.packs) > 2 * len(running) + _SLACK:
            self.packs = {name: pack for name, pack in self.packs.items() if name in running}
        self.packs[request] = asked.pack


def users_of(output_processor: Any, pack: str) -> int:
    """How many requests that are under way use a pack."""
    running = output_processor.request_states
    known = InFlight.of(output_processor).packs
    return sum(name in running for name, used in known.items() if used == pack)


def noting(add: Any) -> Any:
    """Wrapper of ``OutputProcessor.add_request``."""

    @functools.wraps(add)
    def add_request(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        params = getattr(request, "sampling_params", None)
        asked = Asked.of(params)
        if asked is not None:
            if CACHE_KEY not in extra_args(params):
                raise Refused(
                    f"{KEY}={extra_args(params).get(KEY)!r} came in a request that was built "
                    "beside vLLM's input processor, where steering is understood; give a prompt "
                    "and sampling parameters instead."
                )
            if getattr(request, "resumable", False):
                raise Refused(
                    "A prompt that is still being sent cannot be steered or read: where it ends "
                    f"is not known yet. Leave {KEY} out, or send it whole."
                )
            InFlight.of(self).enter(request.request_id, asked, self.request_states)
        return add(self, request, *args, **kwargs)

    return add_request
