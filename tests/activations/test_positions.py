from __future__ import annotations

import numpy as np
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
        # The first token of a row is a sink: no mean takes it in, and k counts the others.
        ("from:3", {"prompt": (0, 22)}, range(4, 22)),
        ("mean:text", {"text": (0, 22)}, range(1, 22)),
        ("mean:prompt", CHAT, range(1, 12)),
        ("first:2:prompt", CHAT, range(1, 3)),
        ("last:text", {"text": (0, 1)}, range(1)),
        ("all:prompt", CHAT, range(12)),
        ("mean:prompt+sinks", CHAT, range(12)),
        ("first:2:prompt+sinks", CHAT, range(2)),
        ("from:3+sinks", {"prompt": (0, 22)}, range(3, 22)),
    ],
)
def test_tokens(name: str, parts: dict[str, tuple[int, int]], expected: range) -> None:
    sinks = np.arange(22) == 0
    assert Position.parse(name).tokens(parts, sinks, "r").tolist() == list(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean:reply", [13, 15, 16, 17, 18, 19]),
        ("first:2:reply", [13, 15]),
        ("from:2:reply", [16, 17, 18, 19]),
        ("mean:reply+sinks", list(range(12, 20))),
        ("all:reply", list(range(12, 20))),
    ],
)
def test_sinks_inside_a_part_are_left_out_of_means(name: str, expected: list[int]) -> None:
    sinks = np.isin(np.arange(22), (0, 12, 14))
    assert Position.parse(name).tokens(CHAT, sinks, "r").tolist() == expected


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
        Position.parse(name).tokens({**CHAT, "system": (3, 3)}, np.arange(22) == 0, "r")


@pytest.mark.parametrize("name", ["mean:text", "first:1:text", "from:0:text"])
def test_a_text_of_sinks_alone_is_refused_with_a_way_out(name: str) -> None:
    with pytest.raises(DataError, match=rf"Record r .* sinks .* 'last' or '{name}\+sinks'"):
        Position.parse(name).tokens({"text": (0, 1)}, np.array([True]), "r")


def test_several_names() -> None:
    names = [p.name for p in parse_positions(" last, mean:reply,last")]
    assert names == ["last", "mean:reply"]
    assert parse_positions(["from:8"])[0] == Position("from:8", "from", 8)
    taking = Position("first:2:text+sinks", "first", 2, "text", sinks=True)
    assert Position.parse("first:2:text+sinks") == taking
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
        "last+sinks",
        "all+sinks",
        "mean+sinks",
    ],
)
def test_unknown_names_are_listed(name: str) -> None:
    with pytest.raises(UnknownNameError, match="last"):
        parse_positions(name)


def test_every_design_has_a_default() -> None:
    assert set(DEFAULT_POSITIONS) == set(DESIGNS)
    for name in DEFAULT_POSITIONS.values():
        assert Position.parse(name).pooled
