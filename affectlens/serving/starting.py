"""Start a server in this process' place."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from affectlens.serving.vllm.launching import prepare


def start(
    packs: Sequence[str],
    model: str | None,
    options: Mapping[str, Any],
    *,
    python: str | None,
    extra: Sequence[str],
    say: Callable[[str], None],
) -> NoReturn:
    """Become ``vllm serve``; signals and the exit code are its own.

    Args:
        packs, model, options, python, extra: See `prepare`.
        say: Takes one line for people.

    Raises:
        AffectLensError: As `prepare`, before anything is started.
    """
    launch = prepare(packs, model, options=options, python=python, extra=extra)
    for name in launch.left_out:
        say(f"Plug-in {name} would add routes and is not loaded; name it in VLLM_PLUGINS to do so.")
    say(f"VLLM_PLUGINS={launch.environment['VLLM_PLUGINS']} {shlex.join(launch.command)}")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(launch.command[0], launch.command, dict(launch.environment))
