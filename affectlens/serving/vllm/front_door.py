"""The front door: requests are understood, or refused in a sentence, before the engine sees them.

It runs where clients are answered. What it refuses becomes an HTTP 400 or a ValueError; the engine
and everybody else's requests never notice.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from affectlens.core import AffectLensError, DataError
from affectlens.core.errors import unknown
from affectlens.serving.contract import KEY
from affectlens.serving.loaded_packs import probes_of
from affectlens.serving.vllm.metrics import metrics
from affectlens.serving.vllm.request_fields import (
    NAMES,
    PACK,
    PROMPT,
    READ,
    Asked,
    extra_args,
)
from affectlens.serving.vllm.settings import Settings
from affectlens.steering.pack import SteeringPack
from affectlens.steering.spec import SteeringSpec


def _client_error() -> Any:
    """Of vLLM: what it answers with HTTP 400, where any other error becomes a 500 without words."""
    try:
        return importlib.import_module("vllm.exceptions").VLLMClientError
    except ImportError:
        return type("ClientError", (Exception,), {})


_ClientError: Any = _client_error()


class Refused(_ClientError, ValueError):
    """A request that cannot be served: HTTP 400, or a ValueError offline."""


class Conflict(AffectLensError):
    """A change that cannot be made now."""


class FrontDoor:
    """Checks the requests of one front-end process.

    Attributes:
        packs: What requests can name. Never changed in place: other threads read it.
        first: The pack that requests mean if they name none.
        reads: Whether the workers run probes.

    Args:
        settings: Of the plug-in.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.packs: Mapping[str, SteeringPack] = settings.load()
        self.first = next(iter(self.packs))
        self.default = settings.default
        # Workers read where the first packs do; without probes at the start they do not at all.
        self.reads = settings.read and any(map(probes_of, self.packs.values()))
        self._changing = threading.Lock()
        self.admitted, self.refused = 0, 0
        if self.default is not None:  # a server whose default cannot be served does not start
            self.understand({})

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

    def understand(self, given: Mapping[str, Any]) -> Asked | None:
        """What a request asks for; None if nothing.

        Raises:
            AffectLensError: If it cannot be served.
        """
        for name in given:
            if name.startswith(KEY) and name not in NAMES:
                raise unknown("steering option", name, NAMES[:3])
        text, read = given.get(KEY, self.default), _truth(given.get(READ, False))
        if text is None and not read:
            return None
        pack_name, pack = self._pack(given)
        spec = pack.resolve(text)
        if spec and spec.operator not in self.settings.operators:
            raise unknown("operator of this server", spec.operator, self.settings.operators)
        if read and pack.readout is None:
            raise DataError(f"Pack {pack_name} holds no probes, so nothing can be read with it.")
        if (read or (spec and spec.gate)) and not self.reads:
            raise DataError(
                "This server was started without probes (or its model is split into stages), so it "
                "cannot read emotions or gate; have a pack with probes among those it starts with."
            )
        if not spec and not read:
            return None
        key, prompt = cache_key(pack, spec), given.get(PROMPT)
        if not spec:
            return Asked(pack_name, "", read, key, "", prompt)
        return Asked(pack_name, str(spec), read, key, str(spec.positions), prompt)

    def _pack(self, given: Mapping[str, Any]) -> tuple[str, SteeringPack]:
        packs = self.packs
        name = given.get(PACK, self.first)
        if isinstance(name, str) and name in packs:
            return name, packs[name]
        if PACK not in given:
            raise DataError(
                f"Pack {name}, which requests mean if they name none, is not loaded; name another "
                f"with {PACK}: {', '.join(packs) or '(none is)'}."
            )
        raise unknown("steering pack", name, packs)

    @contextmanager
    def changing(self) -> Generator[None]:
        """Hold while packs are loaded or unloaded.

        Raises:
            Conflict: If another change is under way.
        """
        if not self._changing.acquire(blocking=False):
            raise Conflict("Another pack is being loaded or unloaded; try again in a moment.")
        try:
            yield
        finally:
            self._changing.release()

    def open(self, name: str, pack: SteeringPack) -> None:
        """Let requests name a pack that the workers hold."""
        self.packs = {**self.packs, name: pack}

    def close(self, name: str) -> SteeringPack:
        """Let no request name it any more."""
        pack = self.packs[name]
        self.packs = {known: held for known, held in self.packs.items() if known != name}
        return pack


def cache_key(pack: SteeringPack, spec: SteeringSpec) -> str:
    """Equal for requests whose steered tokens have the same keys and values, wherever they are."""
    return f"{pack.fingerprint}:{spec.changed(positions=None).fingerprint}" if spec else ""


_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _truth(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in _TRUTH:
        raise DataError(f"{READ} must be true or false, not {value!r}.")
    return _TRUTH[text]


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
