"""What the files of steering packs are called."""

from __future__ import annotations


def untuned_file(pack: str) -> str:
    """Of a pack with strengths of 1, relative to the run folder."""
    return f"{pack}_untuned.safetensors"


def tuned_file(pack: str) -> str:
    """Of a pack with the strengths that were chosen, relative to the run folder."""
    return f"{pack}.safetensors"
