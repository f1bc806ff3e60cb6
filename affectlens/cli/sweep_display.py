"""What ``affectlens probe sweep`` shows: a live table while it works, a short one at the end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from affectlens.cli.consoles import narrow_table, print_lines, stderr, stdout, told
from affectlens.core.progress import bar_columns, drawn_by

if TYPE_CHECKING:
    from rich.console import RenderableType

    from affectlens.sweeps import SweepRequest, SweepResults

_SHOWN = 24  # rows of the live table, the last ones


def sweep_with_progress(request: SweepRequest, *, as_json: bool) -> None:
    """Sweep with a live table of what was found and bars with the time left, then print the best.

    Where nobody watches, each piece of work is a line on stderr.
    """
    from affectlens.sweeps import run_sweeps

    if stderr().is_terminal:
        with _live() as watch:
            found = run_sweeps(request, watch)
    else:
        found = run_sweeps(request, told)
    print_sweeps(found, request, as_json=as_json)


@contextmanager
def _live() -> Generator[Callable[[str, str], None]]:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import Progress
    from rich.table import Table

    bars = Progress(*bar_columns(), console=stderr())
    done: dict[str, str] = {}

    def drawn() -> RenderableType:
        table = Table("what", "found", title="probe sweep")
        for name, what in list(done.items())[-_SHOWN:]:
            table.add_row(name, what)
        return Group(table, bars)

    @contextmanager
    def bar(description: str, total: int, unit: str) -> Generator[Callable[[int], None]]:
        del unit
        task = bars.add_task(description, total=total)
        try:
            yield lambda steps: bars.advance(task, steps)
        finally:
            bars.remove_task(task)

    with Live(get_renderable=drawn, console=stderr(), refresh_per_second=4), drawn_by(bar):
        yield done.__setitem__


def print_sweeps(found: SweepResults, request: SweepRequest, *, as_json: bool) -> None:
    """The chosen site of every sweep, and where everything lies."""
    out = stdout()
    rows = found.best_rows()
    if as_json:
        print_lines(rows)
        return
    # What all rows share stands in the title: a terminal is narrow, and names are to be whole.
    names = ("model", "corpus", "target", "probe", "site", "score")
    alike = {name for name in names if len({str(row[name]) for row in rows}) == 1} - {"site"}
    shared = [str(rows[0][name]) for name in names if name in alike]
    heads = [name for name in names if name not in alike]
    title = "held-out score at the site that cross-validation chose"
    table = narrow_table(title=" · ".join([title, *shared]))
    for head in heads:
        table.add_column(head, no_wrap=True)
    for head in ("value", "95 %"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        interval = f"{row['low']:.3f}–{row['high']:.3f}"
        table.add_row(*(str(row[name]) for name in heads), f"{row['value']:.3f}", interval)
    out.print(table)
    held = (
        f"{row['rows_held_out']:,} rows of {row['groups_held_out']:,} groups ({row['held_out']})"
        for row in rows
    )
    out.print(f"held out: {'; '.join(dict.fromkeys(held))}", soft_wrap=True)
    out.print(f"Report: {request.out / 'report.html'}", soft_wrap=True)
