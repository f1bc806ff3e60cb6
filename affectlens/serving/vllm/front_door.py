"""The front door: requests are understood, or refused in a sentence, before the engine sees them.

It runs where clients are answered. What it refuses becomes an HTTP 400 or a ValueError; the engine
and everybody else's requests never notice.
"""

from __future__ import annotations

import importlib
from typing import Any

from affectlens.core import AffectLensError, DataError
from affectlens.serving.contract import KEY
from affectlens.serving.door import Door
from affectlens.serving.metrics import metrics
from affectlens.serving.request_fields import (
    NAMES,
    PROMPT,
    READ,
    Asked,
    extra_args,
)
from affectlens.serving.settings import Settings


def _client_error() -> Any:
    """Of vLLM: what it answers with HTTP 400, where any other error becomes a 500 without words."""
    try:
        return importlib.import_module("vllm.exceptions").VLLMClientError
    except ImportError:
        return type("ClientError", (Exception,), {})


_ClientError: Any = _client_error()


class Refused(_ClientError, ValueError):
    """A request that cannot be served: HTTP 400, or a ValueError offline."""


class FrontDoor(Door):
    """Checks the requests of one front-end process.

    Args:
        settings: Of the plug-in.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.admitted, self.refused = 0, 0

    def admit(self, params: Any) -> Any:
        """Sampling parameters as the engine gets them.

        Args:
            params: As the client gave them.

        Raises:
            Refused: In a sentence.
        """
        given, asked = extra_args(params), self.look(params)
        kept = {name: value for name, value in given.items() if name not in NAMES}
        if asked is not None:
            kept |= asked.to_extra_args()
            self.admitted += bool(asked.spec)
            if (counters := metrics()) is not None:
                counters.admitted(asked.pack, steered=bool(asked.spec), read=asked.read)
        elif len(kept) == len(given):
            return params
        changed = params.clone()
        changed.extra_args = kept or None
        return changed

    def look(self, params: Any) -> Asked | None:
        """What `admit` would let in, or refuse, without letting it in.

        Raises:
            Refused: In a sentence.
        """
        try:
            asked = self.understand(extra_args(params))
            if asked is not None and asked.read and getattr(params, "n", 1) != 1:
                raise DataError(f"{READ} gives the readings of one reply: ask with n=1.")
        except AffectLensError as error:
            self.refused += 1
            if (counters := metrics()) is not None:
                counters.refused()
            raise Refused(str(error)) from error
        return asked


def refuse_unconfigured(params: Any) -> None:
    """Without a pack, a request to steer must not be answered as if it had been steered.

    Raises:
        Refused: If it asks for steering.
    """
    if any(name.startswith(KEY) and name != PROMPT for name in extra_args(params)):
        raise Refused(
            "This server has no steering pack; start it with "
            '--additional-config \'{"affectlens": {"packs": "pack.safetensors"}}\'.'
        )
