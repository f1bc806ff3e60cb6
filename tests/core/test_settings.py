"""Settings: made of keywords at the door, and what tells results apart."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from affectlens.core.errors import UnknownNameError
from affectlens.core.settings import from_options, identity, indifferent


@dataclass(frozen=True)
class Yeast:
    grams: float = 7.0


@dataclass(frozen=True)
class Baking:
    hours: float = 1.0
    ovens: int = indifferent(2)
    yeast: Yeast = field(default_factory=Yeast)


class TestFromOptions:
    def test_what_is_not_given_is_as_the_class_says(self) -> None:
        assert from_options(Baking, {"hours": 2.0}, "bake") == Baking(2.0, 2, Yeast(7.0))

    def test_an_unknown_option_names_the_nearest_first(self) -> None:
        with pytest.raises(
            UnknownNameError, match=r"^Unknown option of bake 'hour'; choose one of: hours, "
        ):
            from_options(Baking, {"hour": 2.0}, "bake")


class TestIdentity:
    def test_what_makes_no_difference_is_left_out(self) -> None:
        assert identity(Baking(ovens=1)) == identity(Baking(ovens=9))
        assert identity(Baking(hours=1)) != identity(Baking(hours=2))

    def test_nested_settings_become_plain(self) -> None:
        assert identity(Baking()) == {"hours": 1.0, "yeast": {"grams": 7.0}}
