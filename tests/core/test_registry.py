"""Tables by name: order, unknown names, names taken, rows for a while."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from affectlens.core.errors import DataError, UnknownNameError
from affectlens.core.registry import Registry


@dataclass(frozen=True)
class Row:
    name: str
    help: str = "a row"


TABLE = Registry("toy", Row("first"), Row("second"))


def test_order_and_lookup() -> None:
    assert list(TABLE) == ["first", "second"] and TABLE["second"].name == "second"


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(UnknownNameError, match=r"toy 'frist'.*first"):
        TABLE["frist"]
    assert "frist" not in TABLE


def test_a_name_is_taken_once() -> None:
    with pytest.raises(DataError, match="already toy 'first'"):
        TABLE.add(Row("first"))


def test_a_row_for_a_while() -> None:
    with pytest.raises(ZeroDivisionError), TABLE.adding(Row("third")):
        assert TABLE["third"].help == "a row"
        raise ZeroDivisionError
    assert list(TABLE) == ["first", "second"]
