"""Replies of one HTTP request as they are written, on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from affectlens.serving.local.engine import Engine
from affectlens.serving.local.generation import Failed, Generation, Piece

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Listener:
    """Asks for replies and hears what is said of them.

    Args:
        engine: Writes them.
        wanted: What to write.
        whole: Whether replies are wanted whole, not piece by piece.

    Raises:
        AffectLensError: As `Engine.submit`.
    """

    def __init__(self, engine: Engine, wanted: Sequence[Generation], *, whole: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, list[Piece] | Failed]] = asyncio.Queue()
        self._kept: list[list[Piece]] = [[] for _ in wanted]
        self._whole = whole
        self._tickets = engine.submit(
            [(asked, partial(self._told, i)) for i, asked in enumerate(wanted)]
        )

    async def pieces(self) -> AsyncGenerator[tuple[int, list[Piece]], None]:
        """Which reply, and what is new of it, until all have ended.

        Raises:
            Exception: Of the first that failed.
        """
        left = len(self._tickets)
        while left:
            index, found = await self._queue.get()
            if isinstance(found, Failed):
                raise found.error
            left -= found[-1].finish is not None
            yield index, found

    def cancel(self) -> None:
        """Give up what is not finished."""
        for ticket in self._tickets:
            ticket.cancel()

    def _told(self, index: int, event: Piece | Failed) -> None:
        """On the engine's thread."""
        found: list[Piece] | Failed
        if isinstance(event, Failed):
            found = event
        else:
            self._kept[index].append(event)
            if self._whole and event.finish is None:
                return
            found, self._kept[index] = self._kept[index], []
        self._loop.call_soon_threadsafe(self._queue.put_nowait, (index, found))


async def unless_gone(receive: Callable[[], Awaitable[Any]], work: Awaitable[T]) -> T:
    """Wait for something as long as the client does.

    Args:
        receive: Of the request, whose body has been read.
        work: What to wait for.

    Raises:
        ClientGone: If the client has closed the connection.
    """

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await one
