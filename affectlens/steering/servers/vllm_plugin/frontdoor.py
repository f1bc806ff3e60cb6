"""The front door: requests are understood, or refused in a sentence, before the engine sees them.

It runs where clients are answered. What it refuses becomes an HTTP 400 or a ValueError; the engine
and everybody else's requests never notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from affectlens.core import AffectLensError
from affectlens.core.errors import unknown
from affectlens.steering.pack import SteeringPack
from affectlens.steering.servers.vllm_plugin.settings import KEY, Settings
from affectlens.steering.servers.vllm_plugin.transport import NAMES, PACK, READ, Asked, extra_args
from affectlens.steering.spec import SteeringSpec


class Refused(ValueError):
    """A request that cannot be served; vLLM answers with HTTP 400."""


class FrontDoor:
    """Checks the requests of one front-end process.

    Args:
        settings: Of the plug-in.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.packs: dict[str, SteeringPack] = settings.load()
        self.default = settings.default
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
        given = extra_args(params)
        try:
            asked = self.understand(given)
        except AffectLensError as error:
            self.refused += 1
            raise Refused(str(error)) from error
        kept = {name: value for name, value in given.items() if name not in NAMES}
        if asked is not None:
            kept |= asked.to_extra_args()
            self.admitted += bool(asked.spec)
        elif len(kept) == len(given):
            return params
        changed = params.clone()
        changed.extra_args = kept or None
        return changed

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
        names = list(self.packs)
        name = given.get(PACK, names[0] if names else "")
        if name not in self.packs:
            raise unknown("steering pack", name, names)
        pack = self.packs[str(name)]
        spec = pack.resolve(text)
        if spec and spec.operator not in self.settings.operators:
            raise unknown("operator of this server", spec.operator, self.settings.operators)
        if read and (pack.readout is None or not self.settings.read):
            raise Refused(f"Pack {name} holds no probes, so nothing can be read with it.")
        if not spec and not read:
            return None
        return Asked(str(name), str(spec) if spec else "", read, cache_key(pack, spec))


def cache_key(pack: SteeringPack, spec: SteeringSpec) -> str:
    """Equal for requests whose steered tokens have the same keys and values."""
    return f"{pack.fingerprint}:{spec.fingerprint}" if spec else ""


def _truth(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("1", "true", "yes")
    return bool(value)


def refuse_unconfigured(params: Any) -> None:
    """Without a pack, a request to steer must not be answered as if it had been steered.

    Raises:
        Refused: If it asks for steering.
    """
    if any(name.startswith(KEY) for name in extra_args(params)):
        raise Refused(
            "This server has no steering pack; start it with "
            '--additional-config \'{"affectlens": {"packs": "pack.safetensors"}}\'.'
        )
