"""The packs that are meant where nobody names one."""

from __future__ import annotations

from pathlib import Path

from affectlens.steering.packs.sources.box import names_in


def usual_packs(run: Path | None, default: Path) -> list[str]:
    """The pack of a run, or those that come with the package.

    Args:
        run: The folder that was named; None if none was.
        default: Where runs go that nobody names.

    Returns:
        The pack of ``run``, there or not; of ``default`` if it has one; otherwise all of the box,
        and only if that is empty the file that is missing in ``default``.
    """
    file = (run or default) / "pack.safetensors"
    if run is not None or file.is_file():
        return [str(file)]
    return [*names_in("")] or [str(file)]
