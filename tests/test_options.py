"""Keywords of public functions are the fields of their settings, which document them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_type_hints

import pytest

import affectlens as al
from affectlens.activations import capture_with_ray
from affectlens.activations.distributed.settings import RayOptions, RaySettings
from affectlens.activations.settings import (
    CaptureOptions,
    CaptureSettings,
    PassOptions,
    PassSettings,
)
from affectlens.activations.streaming.moments import weighted_sums
from affectlens.circuits.find import CircuitSearchOptions, CircuitSearchSettings
from affectlens.cli.commands import activations as commands
from affectlens.comparison.settings import ComparisonOptions, ComparisonSettings
from affectlens.core.errors import UnknownNameError
from affectlens.geometry import group_sums
from affectlens.geometry.streaming import StreamOptions, StreamSettings
from affectlens.probes.settings import SweepOptions, SweepSettings

PAIRS: list[tuple[type[Any], Any]] = [
    (PassSettings, PassOptions),
    (CaptureSettings, CaptureOptions),
    (RaySettings, RayOptions),
    (StreamSettings, StreamOptions),
    (CircuitSearchSettings, CircuitSearchOptions),
    (SweepSettings, SweepOptions),
    (ComparisonSettings, ComparisonOptions),
]


@pytest.mark.parametrize(("settings", "options"), PAIRS)
def test_the_keywords_of_a_function_are_the_fields_of_its_settings(
    settings: type[Any], options: Any
) -> None:
    assert get_type_hints(options) == get_type_hints(settings)


@pytest.mark.parametrize(("settings", "options"), PAIRS)
def test_settings_document_each_option_once(settings: type[Any], options: Any) -> None:
    inherited = {name for base in settings.__mro__[1:-1] for name in get_type_hints(base)}
    for name in get_type_hints(options):
        said = (settings.__doc__ or "").count(f"\n        {name}: ")
        assert said == (0 if name in inherited else 1), name


@pytest.mark.parametrize(
    ("function", "arguments", "wrong", "nearest"),
    [
        (al.capture, (None, None), "max_tokens", "max_tokens_per_batch"),
        (capture_with_ray, (None, None), "worker", "workers"),
        (al.moments, (None, None), "over_long", "overlong"),
        (al.moments, (None, None), "dtype", r"\w+"),  # nothing is stored: no dtype to choose
        (weighted_sums, (None, None, None), "pad", "padding"),
        (al.stream_directions, (None, None), "split", "splits"),
        (group_sums, (None, None), "sed", "seed"),
        (al.find_circuit, (None, None, None), "budgets", "budget"),
        (al.sweep, (None,), "penalty", "penalties"),
    ],
)
def test_an_unknown_option_is_refused_in_a_sentence_that_names_the_nearest(
    function: Callable[..., Any], arguments: tuple[Any, ...], wrong: str, nearest: str
) -> None:
    more = {"out": "nowhere"} if function is capture_with_ray else {}
    with pytest.raises(
        UnknownNameError, match=rf"^Unknown option of .* '{wrong}'; choose one of: {nearest}\b"
    ):
        function(*arguments, **{wrong: 1}, **more)


def test_the_command_captures_as_the_function_does_unless_told_otherwise() -> None:
    command = inspect.signature(commands.capture).parameters
    settings = {one.name: one.default for one in fields(CaptureSettings)}
    function = {n: p.default for n, p in inspect.signature(al.capture).parameters.items()}
    shared = command.keys() & (settings.keys() | function.keys()) - {"model", "corpus", "out"}
    assert shared >= {"sites", "positions", "dtype", "overlong", "engine", "resume", "force"}
    for name in shared:
        assert command[name].default == (settings | function)[name], name
