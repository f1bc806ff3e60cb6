"""Start a server in this process' place."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from affectlens.serving.servers import SERVERS


def start(
    server: str,
    packs: Sequence[str],
    model: str | None,
    options: Mapping[str, Any],
    *,
    python: str | None,
    extra: Sequence[str],
    say: Callable[[str], None],
) -> NoReturn:
    """Become a server; signals and the exit code are its own.

    Args:
        server: A name in `affectlens.serving.servers.SERVERS`.
        packs, model, options, python, extra: See `affectlens.serving.contract.Prepare`.
        say: Takes one line for people.

    Raises:
        UnknownNameError: If there is no such server.
        AffectLensError: As its `Prepare`, before anything is started.
    """
    prepare = SERVERS[server].prepare
    launch = prepare(packs, model, options=options, python=python, extra=extra)
    for name in launch.left_out:
        say(f"Plug-in {name} would add routes and is not loaded; name it in VLLM_PLUGINS to do so.")
    say(launch.line)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(launch.command[0], launch.command, dict(launch.environment))
