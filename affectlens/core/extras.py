"""What belongs to which extra: steering and serving install little, studies more.

``pip install affectlens`` brings what loads models, steers and serves. The packages below come with
an extra each; whatever needs one of them says so in a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from affectlens.core.errors import ModelError

EXTRA_OF: Mapping[str, str] = {
    "pandas": "study",
    "plotly": "study",
    "pyarrow": "study",
    "scipy": "study",
    "sklearn": "study",
    "transformer_lens": "study",
    "nnsight": "nnsight",
    "peft": "adapters",
    "ray": "distributed",
    "torchao": "quantised",
    "bitsandbytes": "quantised",
    "fastapi": "serve",
    "prometheus_client": "serve",
    "uvicorn": "serve",
    "anywidget": "play",
    "httpx": "play",
}
"""Package, as it is imported → the extra of ``pyproject.toml`` that installs it."""


def needed(package: str, what: str) -> Any:
    """A package of an extra.

    Args:
        package: As it is imported, one of `EXTRA_OF`.
        what: What needs it, as the beginning of a sentence.

    Returns:
        The module.

    Raises:
        ModelError: If it is not installed; says how to install it.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModelError(f"{what} needs {package}: {how_to_install(package)}.") from error


def require(packages: Iterable[str], what: str) -> None:
    """Make sure before a long work that what it needs is there, without importing it.

    Args:
        packages: As they are imported, of `EXTRA_OF`.
        what: What needs them, as the beginning of a sentence.

    Raises:
        ModelError: If one of them is not installed.
    """
    for package in packages:
        if find_spec(package) is None:
            raise ModelError(f"{what} needs {package}: {how_to_install(package)}.")


def how_to_install(package: str) -> str:
    """What to type, for a package of `EXTRA_OF`."""
    return f"pip install 'affectlens[{EXTRA_OF[package]}]'"


def lacking(error: BaseException) -> str | None:
    """The sentence for an import that failed because an extra is not installed; None for others."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package not in EXTRA_OF:
        return None
    return f"This needs {package}, which is not installed: {how_to_install(package)}."
