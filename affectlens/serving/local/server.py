"""The row of the local server, and the command that starts it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from affectlens.core.extras import require
from affectlens.serving.contract import KEY, Launch, ServerKind
from affectlens.serving.door import Door
from affectlens.serving.pack_requests import pack_files
from affectlens.serving.settings import Settings

NEEDED = ("fastapi", "uvicorn", "prometheus_client")
API_KEY = "AFFECTLENS_API_KEY"
"""Environment variable with the key: arguments of a process can be read by everybody."""


def prepare(
    packs: Sequence[str],
    model: str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    python: str | None = None,
    extra: Sequence[str] = (),
) -> Launch:
    """See `affectlens.serving.contract.Prepare`.

    Raises:
        ModelError: If what the server needs is not installed, or no model is named.
        DataError, UnknownNameError, ArtefactError: If settings or packs cannot be used.
    """
    if python is None:
        require(NEEDED, "The local server")
    files = pack_files(packs)
    given = {name: value for name, value in (options or {}).items() if value is not None}
    key = given.pop("api_key", None)
    given.pop("reserve", None)  # nothing has to be reserved here
    settings = {"packs": files, "max_packs": max(8, len(files) + 1), **given}
    checked = Settings.of({KEY: settings})
    assert checked is not None
    model = Door(checked).model_for(model)
    environment = dict(os.environ)
    if key is not None:
        environment[API_KEY] = str(key)
    command = [python or sys.executable, "-m", "affectlens.serving.local"]
    arguments = ["--model", model, "--steering", json.dumps(settings), *extra]
    return Launch((*command, *arguments), environment, program="The local server")


TRANSFORMERS = ServerKind(
    "transformers", "this process' own server, on any device, without vLLM", prepare
)
