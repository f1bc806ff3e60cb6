"""What a back end is: it continues prompts, steered or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from affectlens.models import LanguageModel
    from affectlens.models.generation.generation import GenerationSettings
    from affectlens.steering import SteeringPack

Ids = tuple[int, ...]
Advance = Callable[[int], object]


class Backend(Protocol):
    """Continues prompts."""

    def generate(
        self,
        prompts: Sequence[Ids],
        specs: Sequence[Any],
        pack: SteeringPack | None,
        settings: GenerationSettings,
        advance: Advance,
    ) -> list[Ids]:
        """Generate one reply per prompt.

        Args:
            prompts: Token ids.
            specs: What to steer each with; None = not at all.
            pack: The vectors; None if nothing is steered.
            settings: Of generation, the same for all.
            advance: Told about every reply finished.

        Returns:
            Token ids of the replies, without the one that ended them.
        """
        ...


@dataclass(frozen=True)
class BackendRequest:
    """What is to be opened.

    Attributes:
        model: What must generate.
        source: What the user calls it: a name, hub id or folder, for a process of its own.
        packs: File to pack: all that will be steered with.
        prompt: One of those to come, to know the model by.
        url: A server or cluster that is there already; None starts one, where one is needed.
        python: Interpreter to start one with.
        log: Where a server of our own writes.
        arguments: More of its command line.
        workers: Processes with a model each, where the back end has such.
    """

    model: LanguageModel
    source: str
    packs: Mapping[Path, SteeringPack]
    prompt: Ids
    url: str | None
    python: str | None
    log: Path
    arguments: Sequence[str] = ()
    workers: int | None = None


@dataclass(frozen=True)
class BackendKind:
    """A row of the table.

    Attributes:
        name: What users write.
        help: One line.
        open: Has it there while a block runs.
        has_address: Whether it may be somewhere else already.
        every_spec: Whether it can do whatever a spec asks for, and not that alone which the
            tables of a server hold.
    """

    name: str
    help: str
    open: Callable[[BackendRequest], AbstractContextManager[Backend]]
    has_address: bool
    every_spec: bool = True
