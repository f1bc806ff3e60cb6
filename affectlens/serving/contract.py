"""What a server of steered models has to offer: names, routes, a command that starts it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

KEY = "affectlens"
"""Of a request's spec, of a server's settings, and of our routes."""
ROUTES = f"/plugins/{KEY}"
PACKS_ROUTE, STATE_ROUTE = f"{ROUTES}/packs", f"{ROUTES}/state"


@dataclass(frozen=True)
class Launch:
    """A process to start.

    Attributes:
        command: Program and arguments.
        environment: All its variables.
        left_out: Plug-ins that are not loaded, since they would add routes nobody asked for.
        program: What it is, in messages.
        shown: Names of the variables that belong to the command when people read it.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    left_out: tuple[str, ...] = ()
    program: str = "The server"
    shown: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """What one would type."""
        named = [f"{name}={self.environment[name]}" for name in self.shown]
        return " ".join([*named, shlex.join(self.command)])


class Prepare(Protocol):
    """Makes the command of a server, or refuses before anything is started."""

    def __call__(
        self,
        packs: Sequence[str],
        model: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        python: str | None = None,
        extra: Sequence[str] = (),
    ) -> Launch:
        """Check what people type, and make the command of it.

        Args:
            packs: Files, or ``name=file``; the first is the one that requests mean if they name
                none.
            model: Built-in name, hub id or folder; default: the model of the first pack.
            options: Other settings of steering; those that are None are left out.
            python: Interpreter to start it with.
            extra: More arguments of the server's own command line.

        Raises:
            AffectLensError: If the server, the model or the packs cannot be used.
        """
        ...


@dataclass(frozen=True)
class ServerKind:
    """A row of the table.

    Attributes:
        name: What users write.
        help: One line.
        prepare: Makes the command that starts it.
    """

    name: str
    help: str
    prepare: Prepare
