"""Progress of long work: a bar in the terminal or notebook where somebody watches, else log lines.

The log (level INFO, every half minute) is for jobs that run unattended: what is done, how fast it
goes and how long it will take.
"""

from __future__ import annotations

import html
import logging
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

LOG_SECONDS = 30.0
NOTEBOOK_SECONDS = 0.2
"""Between two drawings in a notebook: each is a message to the browser."""

logger = logging.getLogger(__name__)

Bars = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]
"""Draws a bar: description, total, unit."""

_drawn_by: ContextVar[Bars | None] = ContextVar("bars", default=None)


@contextmanager
def drawn_by(bars: Bars) -> Generator[None]:
    """Within the block `progress` is drawn by something else, such as a table that is live."""
    token = _drawn_by.set(bars)
    try:
        yield
    finally:
        _drawn_by.reset(token)


@contextmanager
def progress(
    description: str, total: int, *, unit: str = ""
) -> Generator[Callable[[int], None], None, None]:
    """Show progress while the block runs.

    Args:
        description: What is being done.
        total: Steps of all of it.
        unit: What a step is, for example ``"tokens"``; if given, the rate is shown as well.

    Yields:
        A function that advances it by so many steps.
    """
    if (bars := _drawn_by.get()) is not None:
        with bars(description, total, unit) as drawn:
            yield drawn
        return
    if in_notebook():
        with _notebook_bar(description, total, unit) as drawn:
            yield drawn
        return
    if not sys.stderr.isatty():
        yield _Logged(description, total, unit)
        return
    from rich.console import Console
    from rich.progress import Progress

    columns = bar_columns(rate=bool(unit))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, rate="")

        def advance(steps: int) -> None:
            bar.advance(task, steps)
            speed = bar.tasks[0].speed
            if unit and speed:
                bar.update(task, rate=f"{speed:,.0f} {unit}/s")

        yield advance


def bar_columns(*, rate: bool = False) -> Sequence[ProgressColumn]:
    """What a bar in a terminal shows: description, bar, steps, time gone by and left.

    Args:
        rate: Whether the field ``rate`` of its task is shown too.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *([TextColumn("{task.fields[rate]}")] if rate else []),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def in_notebook() -> bool:
    """Whether a Jupyter kernel (notebook, lab, VS Code, Colab) runs this code."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None


def watched() -> bool:
    """Whether somebody sees a bar when it is drawn."""
    return in_notebook() or sys.stderr.isatty()


@contextmanager
def _notebook_bar(
    description: str, total: int, unit: str
) -> Generator[Callable[[int], None], None, None]:
    """A bar below the cell, gone when the work is done; plain HTML, so no widgets are needed."""
    from IPython.display import HTML, display

    started, done, drawn = time.monotonic(), 0, float("-inf")
    handle: Any = display(HTML(""), display_id=True)

    def draw() -> None:
        seconds = max(time.monotonic() - started, 1e-9)
        left = f", {_duration((total - done) * seconds / done)} left" if done else ""
        rate = f", {done / seconds:,.0f} {unit}/s" if unit and done else ""
        text = html.escape(f"{description}: {done:,}/{total:,}{rate}{left}")
        handle.update(HTML(f"<progress max='{total}' value='{done}'></progress> {text}"))

    def advance(steps: int) -> None:
        nonlocal done, drawn
        done += steps
        if time.monotonic() >= drawn + NOTEBOOK_SECONDS or done == total:
            drawn = time.monotonic()
            draw()

    try:
        draw()
        yield advance
    finally:
        handle.update(HTML(""))


class _Logged:
    """Writes a line to the log now and then."""

    def __init__(self, description: str, total: int, unit: str) -> None:
        self._description, self._total, self._unit = description, total, unit or "steps"
        self._done, self._started = 0, time.monotonic()
        self._next = self._started + LOG_SECONDS

    def __call__(self, steps: int) -> None:
        self._done += steps
        now = time.monotonic()
        if now < self._next or not self._done:
            return
        self._next = now + LOG_SECONDS
        rate = self._done / (now - self._started)
        logger.info(
            "%s: %s of %s %s, %s %s/s, %s left",
            self._description,
            f"{self._done:,}",
            f"{self._total:,}",
            self._unit,
            f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}",
            self._unit,
            _duration((self._total - self._done) / rate),
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
