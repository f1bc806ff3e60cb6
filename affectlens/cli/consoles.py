"""Where the command line writes: results, and what is told beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def stdout() -> Console:
    """Where results go."""
    from rich.console import Console

    return Console(highlight=False)


def stderr() -> Console:
    """Where progress goes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)
