"""How a request carries its steering: a few strings in ``SamplingParams.extra_args``.

Clients write ``affectlens`` (and perhaps ``affectlens_pack``, ``affectlens_read``); the front door
resolves it once, replaces it by the resolved spec and adds ``affectlens_key``, which says which
tokens are steered and names the steering in the prefix cache, so that nobody reads the spec again
to tell blocks apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from affectlens.serving.contract import KEY

PACK, READ, CACHE_KEY, PROMPT = f"{KEY}_pack", f"{KEY}_read", f"{KEY}_key", f"{KEY}_prompt"
NAMES = (KEY, PACK, READ, CACHE_KEY, PROMPT)
BY_TOKEN = "@"
"""At the end of keys of requests whose steering changes from token to token of the reply."""


@dataclass(frozen=True)
class Asked:
    """A request as the front door passes it on.

    Attributes:
        pack: Name of the pack.
        spec: Resolved, in canonical text; empty if only readings are wanted.
        read: Whether emotions are to be read.
        key: Of the prefix cache: equal for requests that steer alike.
        positions: Which tokens are steered; empty if only readings are wanted.
        prompt: Tokens of the real prompt, where vLLM's idea of it is longer; see `beams`.
    """

    pack: str
    spec: str
    read: bool
    key: str
    positions: str
    prompt: int | None = None

    @classmethod
    def of(cls, params: Any) -> Asked | None:
        """What a request's sampling parameters say; None if nothing."""
        extra = extra_args(params)
        if KEY not in extra and READ not in extra:
            return None
        positions, _, key = str(extra.get(CACHE_KEY, "")).partition(":")
        return cls(
            str(extra.get(PACK, "")),
            str(extra.get(KEY, "")),
            bool(extra.get(READ, False)),
            key,
            positions,
            extra.get(PROMPT),
        )

    def to_extra_args(self) -> dict[str, Any]:
        """What `of` reads back."""
        key = f"{self.positions}:{self.key}"
        plain = {PACK: self.pack, KEY: self.spec, READ: self.read, CACHE_KEY: key}
        return plain if self.prompt is None else {**plain, PROMPT: self.prompt}


def extra_args(params: Any) -> Mapping[str, Any]:
    """The free part of sampling parameters."""
    return cast("Mapping[str, Any]", getattr(params, "extra_args", None) or {})
