"""Which pack steers each arm, and what the files are called."""

from __future__ import annotations

from collections.abc import Mapping

from affectlens.core.errors import unknown

MAIN = "pack"
ANALYTIC = "pack_analytic"
RANDOM = "pack_random"

TUNED: Mapping[str, str] = {
    "residual": MAIN,
    "circuit": MAIN,
    "analytic_residual": ANALYTIC,
    "analytic_circuit": ANALYTIC,
    "random_units_refined_1": "pack_random_units_refined_1",
    "random_units_refined_2": "pack_random_units_refined_2",
    "random_units_analytic": "pack_random_units_analytic",
}
"""Arms whose strengths are chosen on tuning scenarios, and the pack of each."""

PACKS: Mapping[str, str] = {**TUNED, "random": RANDOM}
"""All arms that are steered."""


def untuned_file(pack: str) -> str:
    """Of a pack with strengths of 1, relative to the run folder."""
    return f"{pack}_untuned.safetensors"


def tuned_file(pack: str) -> str:
    """Of a pack with the strengths that were chosen, relative to the run folder."""
    return f"{pack}.safetensors"


def pack_of(arm: str) -> str:
    """The pack of an arm.

    Raises:
        UnknownNameError: If it is not steered.
    """
    if arm not in PACKS:
        raise unknown("steered arm", arm, PACKS)
    return PACKS[arm]
