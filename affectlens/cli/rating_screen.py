"""What a rater sees, and the keys that are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from affectlens.cli.consoles import stdout
from affectlens.evaluation.rating import SURE, keys_of

if TYPE_CHECKING:
    from affectlens.pipeline.rate import Sitting

QUIT, UNDO = "q", "z"


def rate_on_screen(sitting: Sitting, read: Callable[[], str]) -> bool:
    """Show text after text until all are rated or the rater leaves.

    Args:
        sitting: Notes each rating.
        read: Gives the next key.

    Returns:
        Whether all are rated.
    """
    out = stdout()
    keys = keys_of(sitting.labels)
    tones = "  ".join(f"[{key}] {label}" for key, label in keys.items())
    sure = "  ".join(f"[{key}] {meaning}" for key, meaning in SURE.items())
    out.print(
        "Which tone does the text itself have, whatever its content? Two keys each: the tone, then "
        f"how sure. [{UNDO}] takes the last one back, [{QUIT}] leaves; all is kept.",
        markup=False,
    )
    while left := sitting.left:
        shown = left[0]
        out.print(f"\n{len(sitting.texts) - len(left) + 1} of {len(sitting.texts)}", style="dim")
        out.print(shown.text, markup=False, soft_wrap=True)
        out.print(tones, markup=False, style="dim")
        first = _key(read, {*keys, QUIT, UNDO})
        if first == QUIT:
            return False
        if first == UNDO:
            sitting.undo()
            continue
        out.print(f"{keys[first]}?  {sure}", markup=False, style="dim")
        second = _key(read, {*SURE, QUIT, UNDO})
        if second == QUIT:
            return False
        if second != UNDO:
            sitting.rate(shown, keys[first], second)
    return True


def print_rated(result: Mapping[str, Any]) -> None:
    """Agreement with each judge, and what was heard by arm."""
    from rich.table import Table

    out = stdout()
    if not result["n"]:
        out.print("Nothing is rated yet.")
        return
    table = Table(
        "judge", "texts", "agree", "kappa", "kappa where sure", title="You and the judges"
    )
    for one in result["agreement"]:
        sure = f"{one['sure_kappa']:.2f} ({one['sure_n']})"
        row = (f"{one['agree']:.2f}", f"{one['kappa']:.2f}", sure)
        table.add_row(one["judge"], str(one["n"]), *row)
    out.print(table)
    if result["heard"]:
        heard = Table("arm", "texts", "target heard", title="What you heard")
        for arm, (n, share) in result["heard"].items():
            heard.add_row(arm or "file", str(n), f"{share:.2f}")
        out.print(heard)


def _key(read: Callable[[], str], allowed: set[str]) -> str:
    """The next key that means something; control-C and control-D leave."""
    while True:
        key = read().lower()
        if key in ("\x03", "\x04", ""):
            return QUIT
        if key in allowed:
            return key
