from __future__ import annotations

import pytest

from affectlens.activations import DEFAULT_POSITIONS, Position, parse_positions
from affectlens.core.errors import DataError, UnknownNameError
from affectlens.datasets.schema import DESIGNS

CHAT = {"system": (1, 4), "user": (6, 9), "prompt": (0, 12), "reply": (12, 20)}
TURNS = {"user:0": (2, 5), "assistant:0": (7, 9), "user:1": (10, 16), "assistant:1": (18, 20)}


@pytest.mark.parametrize(
    ("name", "parts", "expected"),
    [
        ("last", CHAT, range(21, 22)),
        ("last:reply", CHAT, range(19, 20)),
        ("last:prompt", CHAT, range(11, 12)),
        ("mean:reply", CHAT, range(12, 20)),
        ("mean:user", CHAT, range(6, 9)),
        ("all", CHAT, range(22)),
        ("all:reply", CHAT, range(12, 20)),
        ("from:3", CHAT, range(15, 20)),
        ("from:0:reply", CHAT, range(12, 20)),
        ("from:1:user", CHAT, range(7, 9)),
        ("first:3:reply", CHAT, range(12, 15)),
        ("first:3", CHAT, range(12, 15)),
        ("first:50:reply", CHAT, range(12, 20)),
        ("mean:user:0", TURNS, range(2, 5)),
        ("last:assistant:1", TURNS, range(19, 20)),
        ("first:4:user:1", TURNS, range(10, 14)),
        ("from:1:assistant:0", TURNS, range(8, 9)),
        ("all:user:1", TURNS, range(10, 16)),
        ("from:3", {"text": (1, 22)}, range(4, 22)),
        ("from:3", {"prompt": (0, 22)}, range(3, 22)),
    ],
)
def test_spans(name: str, parts: dict[str, tuple[int, int]], expected: range) -> None:
    assert Position.parse(name).span(parts, 22, "r") == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mean:text", "Record r has no text"),
        ("from:8", "has only 8 tokens to read, 'from:8' skips 8"),
        ("mean:system", "has no tokens at position"),
        ("mean:user:2", "Record r has no user:2, which position 'mean:user:2' reads"),
    ],
)
def test_nothing_to_read(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Position.parse(name).span({**CHAT, "system": (3, 3)}, 22, "r")


def test_several_names() -> None:
    names = [p.name for p in parse_positions(" last, mean:reply,last")]
    assert names == ["last", "mean:reply"]
    assert parse_positions(["from:8"])[0] == Position("from:8", "from", 8)
    assert [p.pooled for p in parse_positions("last,all,all:reply,first:2:reply")] == [
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "mean",
        "mean:7",
        "last:answer",
        "from",
        "first:0",
        "al",
        "mean:user:",
        "mean:user:-1",
        "mean:reply:0",
        "mean:system:0",
        "mean:user:01",
        "user:0",
    ],
)
def test_unknown_names_are_listed(name: str) -> None:
    with pytest.raises(UnknownNameError, match="last"):
        parse_positions(name)


def test_every_design_has_a_default() -> None:
    assert set(DEFAULT_POSITIONS) == set(DESIGNS)
    for name in DEFAULT_POSITIONS.values():
        assert Position.parse(name).pooled
