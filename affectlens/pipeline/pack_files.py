"""What the files of steering packs are called, and what a run's pack remembers of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def untuned_file(pack: str) -> str:
    """Of a pack with strengths of 1, relative to the run folder."""
    return f"{pack}_untuned.safetensors"


def tuned_file(pack: str) -> str:
    """Of a pack with the strengths that were chosen, relative to the run folder."""
    return f"{pack}.safetensors"


def template_variables_of(run: Path) -> Mapping[str, Any]:
    """What the chat template was told in a run; nothing if it has made no pack."""
    from affectlens.steering import SteeringPack

    pack = run / untuned_file("pack")
    return SteeringPack.load(pack).template_variables if pack.is_file() else {}
