"""From what is known at a turn to the emotions of the next reply: one file and one row each."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from affectlens.core import DataError
from affectlens.core.errors import unknown
from affectlens.core.registry import Registry
from affectlens.steering.policies.base import (
    AffectState,
    Decision,
    Known,
    Policy,
    PolicyKind,
    require_within,
)
from affectlens.steering.policies.calm import CALM
from affectlens.steering.policies.constant import CONSTANT
from affectlens.steering.policies.mirror import MIRROR
from affectlens.steering.policies.traits import Traits
from affectlens.steering.policies.transition import TRANSITION

POLICIES: Registry[PolicyKind] = Registry("policy", TRANSITION, CONSTANT, MIRROR, CALM)
"""Every policy. `load_policy` and the command line know them from here alone."""


def load_policy(text: str) -> Policy:
    """Read ``"mirror"``, or with settings ``"transition;traits=neuroticism:0.6;decay=0.2"``.

    Raises:
        UnknownNameError: If there is no such policy or setting, closest first.
        DataError: If a setting cannot be read, or is out of its range.
    """
    name, *settings = (part.strip() for part in text.split(";"))
    kind = POLICIES[name]
    plain: Any = kind.make()
    defaults = {one.name: getattr(plain, one.name) for one in fields(plain)}
    given: dict[str, Any] = {}
    for setting in filter(None, settings):
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not (equals and value):
            raise DataError(
                f"Cannot read {setting!r} in the policy {text!r}; write name=value, for example "
                f"{name};strength=0.8."
            )
        if key not in defaults:
            raise unknown(f"setting of the policy {name}", key, defaults)
        if key in given:
            raise DataError(f"The setting {key} is given twice; keep one.")
        given[key] = _number(key, value) if isinstance(defaults[key], float) else value
    return kind.make(**given)


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{name} must be a number, not {text!r}.") from None


__all__ = [
    "POLICIES",
    "AffectState",
    "Decision",
    "Known",
    "Policy",
    "PolicyKind",
    "Traits",
    "load_policy",
    "require_within",
]
