"""What requests may ask of a server that steers: its packs, its default, and what is refused.

Every server answers from one of these, so a request means the same whatever serves it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from affectlens.core import AffectLensError, DataError, ModelError
from affectlens.core.errors import unknown
from affectlens.serving.coefficients import require_served
from affectlens.serving.contract import KEY
from affectlens.serving.loaded_packs import probes_of
from affectlens.serving.request_fields import BY_TOKEN, NAMES, PACK, PROMPT, READ, Asked
from affectlens.serving.settings import Settings
from affectlens.steering.pack import SteeringPack
from affectlens.steering.spec import SteeringSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Conflict(AffectLensError):
    """A change that cannot be made now."""


class Door:
    """Checks the requests of one process that serves clients.

    Attributes:
        packs: What requests can name. Never changed in place: other threads read it.
        first: The pack that requests mean if they name none.
        default: Spec of requests that bring none.
        reads: Whether the server runs probes.

    Args:
        settings: Of the server.

    Raises:
        ArtefactError, MismatchError, DataError: If a pack cannot be read, or the default cannot be
            served.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.packs: Mapping[str, SteeringPack] = settings.load()
        self.first = next(iter(self.packs))
        self.default = settings.default
        # Workers read where the first packs do; without probes at the start they do not at all.
        self.reads = settings.read and any(map(probes_of, self.packs.values()))
        self._changing = threading.Lock()
        if self.default is not None:  # a server whose default cannot be served does not start
            self.understand({})

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
            if PACK in given:  # for nothing, but it must be one
                self.pack(given)
            return None
        pack_name, pack = self.pack(given)
        spec = pack.resolve(text)
        if spec and spec.operator not in self.settings.operators:
            raise unknown("operator of this server", spec.operator, self.settings.operators)
        require_served(spec)
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

    def model_for(self, named: str | None) -> str:
        """The model to serve: the one that is named, or that the first pack was made for.

        Raises:
            ModelError: If neither says.
        """
        model = self.packs[self.first].provenance.model_name if named is None else named
        if not model:
            raise ModelError("The pack does not say which model it is for; name it with --model.")
        return model

    def pack(self, given: Mapping[str, Any]) -> tuple[str, SteeringPack]:
        """The pack that a request names, or the first.

        Raises:
            UnknownNameError, DataError: If it is not loaded.
        """
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

    def require_new(self, name: str) -> None:
        """Refuse the name of a pack that cannot be loaded beside those that are.

        Raises:
            DataError: If it cannot be a name.
            Conflict: If it is taken, or there is no room.
        """
        require_name(name)
        if name in self.packs:
            raise Conflict(f"A pack called {name} is loaded already; unload it or use a new name.")
        if len(self.packs) >= self.settings.max_packs:
            raise Conflict(
                f"There is no room for pack {name} beside {', '.join(self.packs)}; unload one, or "
                "start the server with more max_packs."
            )

    def require_unloadable(self, name: str) -> None:
        """Refuse to unload what is not loaded, or what the default needs.

        Raises:
            UnknownNameError: If it is not loaded.
            Conflict: If the server steers with it by default.
        """
        if name not in self.packs:
            raise unknown("steering pack", name, self.packs)
        if self.default is not None and name == self.first:
            raise Conflict(
                f"The server steers with pack {name} by default ({self.default}); start it with "
                "another to do without."
            )

    def open(self, name: str, pack: SteeringPack) -> None:
        """Let requests name a pack that the workers hold."""
        self.packs = {**self.packs, name: pack}

    def close(self, name: str) -> SteeringPack:
        """Let no request name it any more."""
        pack = self.packs[name]
        self.packs = {known: held for known, held in self.packs.items() if known != name}
        return pack

    def described(self, name: str, pack: SteeringPack) -> dict[str, Any]:
        """A pack in plain values."""
        return {
            "name": name,
            "default": name == self.first,
            "emotions": list(pack.emotions),
            "modes": list(pack.modes),
            "positions": dict(pack.positions),
            "reads": list(pack.readout.classes) if pack.readout and self.reads else [],
            "fingerprint": pack.fingerprint,
        }

    def listing(self) -> list[dict[str, Any]]:
        """What requests can name, the default first."""
        return sorted(
            (self.described(name, pack) for name, pack in self.packs.items()),
            key=lambda one: not one["default"],
        )


def require_name(name: str) -> None:
    """Refuse what cannot be a pack's name.

    Raises:
        DataError: Saying what can.
    """
    if not _NAME.fullmatch(name):
        raise DataError(f"A pack's name is made of letters, digits, dots, - and _, not {name!r}.")


def cache_key(pack: SteeringPack, spec: SteeringSpec) -> str:
    """Equal for requests whose steered tokens have the same keys and values, wherever they are.

    With a schedule that depends on where the reply begins, which its end says.
    """
    if not spec:
        return ""
    key = f"{pack.fingerprint}:{spec.changed(positions=None).fingerprint}"
    return key if spec.schedule is None else key + BY_TOKEN


_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _truth(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in _TRUTH:
        raise DataError(f"{READ} must be true or false, not {value!r}.")
    return _TRUTH[text]
