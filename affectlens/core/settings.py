"""Settings: frozen dataclasses that say of each option what it does, once.

A public function takes its options as keywords, makes its settings of them at the door
(`from_options`), and hands on the object alone. The same object says what tells results apart
(`identity`), so an option that is added is part of keys and provenance from the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, field, fields, is_dataclass
from typing import Any, TypeVar

from affectlens.core.errors import unknown

S = TypeVar("S")
T = TypeVar("T")

_IDENTIFIES = "identifies"


def indifferent(default: T) -> T:
    """Default of a field that changes how fast or where something is made, but not what.

    Rounding counts as no change: it depends on the machine as well.
    """
    return field(default=default, metadata={_IDENTIFIES: False})


def from_options(settings: type[S], options: Mapping[str, Any], function: str) -> S:
    """Settings from keyword options; what is not given is as the class says.

    Args:
        settings: The class.
        options: By name of field.
        function: Who was given them, as a sentence names it.

    Raises:
        UnknownNameError: If there is no such option, naming those there are, nearest first.
    """
    known = [one.name for one in _fields(settings)]
    for name in options:
        if name not in known:
            raise unknown(f"option of {function}", name, known)
    return settings(**options)


def identity(settings: object) -> dict[str, Any]:
    """What tells results made with these settings from others: all fields not `indifferent`."""
    told = [one.name for one in _fields(settings) if one.metadata.get(_IDENTIFIES, True)]
    values = {name: getattr(settings, name) for name in told}
    return {name: _plain(value) for name, value in values.items()}


def _fields(settings: Any) -> tuple[Field[Any], ...]:
    """Of a dataclass or one of its objects."""
    return fields(settings)


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
