"""What a server makes of units that mean an effect, of places, and of strength over tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from affectlens.core import DataError
from affectlens.serving.door import Door
from affectlens.serving.request_fields import BY_TOKEN
from affectlens.serving.settings import Settings
from affectlens.steering import SteeringPack
from affectlens.steering.intensity import DoseResponse
from tests.steering.oracle import random_pack

LINE = DoseResponse((0, 0.5, 1, 2), (0.05, 0.1, 0.6, 0.9))


@pytest.fixture
def door(tiny_model: Any, tmp_path: Path) -> Door:
    pack = random_pack(tiny_model("llama"))
    pack.with_responses("heard", "residual", {"anger": LINE}).save(tmp_path / "a.st")
    given = {"packs": {"first": str(tmp_path / "a.st")}, "force": True}
    settings = Settings.of({"affectlens": given})
    assert settings is not None
    return Door(settings)


def test_effects_are_resolved_by_the_pack_that_is_served(door: Door) -> None:
    asked = door.understand({"affectlens": "anger=0.6;unit=heard"})
    assert asked is not None and asked.spec == "anger=0.6;mode=residual;" + (
        "positions=last_prompt+generated;unit=heard"
    )
    (_, pack) = door.pack({})
    assert isinstance(pack, SteeringPack)
    assert pack.responses["heard"]["residual"]["anger"] == LINE
    # Beyond the range: its end, which is what the server then steers by, and says back.
    loud = door.understand({"affectlens": "anger=1;unit=heard"})
    assert loud is not None and loud.spec.startswith("anger=0.9;")
    with pytest.raises(DataError, match="what doses of fear do"):
        door.understand({"affectlens": "fear=0.6;unit=heard"})


def test_places_are_mixtures(door: Door) -> None:
    asked = door.understand({"affectlens": "valence=-0.62,arousal=0.82"})
    assert asked is not None and asked.spec.startswith("fear=1;")


def test_schedules_are_passed_on_and_told_apart(door: Door) -> None:
    """Their keys say that keys and values depend on where the reply begins."""
    plain, rising, falling, again = (
        door.understand({"affectlens": f"anger=1{more}"})
        for more in ("", ";schedule=rise:20", ";schedule=fall:20", ";schedule=0:0,20:1")
    )
    assert plain and rising and falling and again
    assert rising.spec.endswith(";schedule=rise:20") and rising == again
    assert len({plain.key, rising.key, falling.key}) == 3
    assert [one.key.endswith(BY_TOKEN) for one in (plain, rising, falling)] == [False, True, True]
    with pytest.raises(DataError, match="Cannot read the schedule"):
        door.understand({"affectlens": "anger=1;schedule=rise"})
