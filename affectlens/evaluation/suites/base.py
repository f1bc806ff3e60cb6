"""What a suite is: a few prompts, and what a reply must be like to pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from typing import Any

from affectlens.core import fingerprint
from affectlens.core.jsonl import parse_jsonl

_PACKAGE = "affectlens.evaluation.suites"


@dataclass(frozen=True)
class Item:
    """One prompt of a suite.

    Attributes:
        id: Unique within all suites.
        prompt: What the user says.
        system: System prompt; "" for none.
        wanted: What the suite's rule needs to know, as its data file has it.
    """

    id: str
    prompt: str
    system: str = ""
    wanted: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)

    def words(self, name: str) -> tuple[str, ...]:
        """A list of the data file; none if it has no such list."""
        return tuple(str(word) for word in self.wanted.get(name, ()))


@dataclass(frozen=True)
class Suite:
    """A row of `SUITES`.

    Attributes:
        name: What users write; also the name of its data file.
        help: What it measures, in one line.
        passes: Whether a reply to an item is as it should be. It reads the reply alone, so that
            equal replies score alike whoever wrote them.
    """

    name: str
    help: str
    passes: Callable[[Item, str], bool]

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The prompts, in the order of the file."""
        return read_items(files(_PACKAGE).joinpath(f"data/{self.name}.jsonl").read_text("utf-8"))

    def score(self, replies: Sequence[str], items: Sequence[Item] | None = None) -> list[bool]:
        """Which replies pass, one per item.

        Args:
            replies: In the order of the items.
            items: Those that were answered; default: all.
        """
        asked = self.items if items is None else items
        return [self.passes(item, reply) for item, reply in zip(asked, replies, strict=True)]

    @property
    def fingerprint(self) -> str:
        """Hash of the prompts and of what is wanted."""
        return fingerprint([[i.id, i.prompt, i.system, dict(i.wanted)] for i in self.items])


def read_items(text: str) -> tuple[Item, ...]:
    """The items of a data file: ``id`` and ``prompt``, maybe ``system``, and what is wanted."""
    found: list[Item] = []
    for row in parse_jsonl(text):
        wanted = {key: row[key] for key in row if key not in ("id", "prompt", "system")}
        found.append(Item(row["id"], row["prompt"], row.get("system", ""), wanted))
    return tuple(found)
