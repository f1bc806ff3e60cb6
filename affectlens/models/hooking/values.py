"""The hidden states among what a module is called with and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def input_name(kwargs: Mapping[str, Any]) -> str:
    """By which name a module that was called with names only got its hidden states."""
    return "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))


def first_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The hidden states a module was called with, by position or by name."""
    return args[0] if args else kwargs[input_name(kwargs)]


def first_output(output: Any) -> Any:
    """The hidden states that a module gave, alone or first of several things."""
    return output[0] if isinstance(output, (tuple, list)) and output else output


def replaced(output: Any, new: Any) -> Any:
    """What a module gave, with other hidden states."""
    return type(output)((new, *output[1:])) if isinstance(output, (tuple, list)) else new
