"""What the page is told of a server: its packs, and what it can be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from affectlens.core.registry import Entry
from affectlens.serving.playground.plane import plane_of
from affectlens.steering.operators import OPERATORS
from affectlens.steering.spec import MAX_STRENGTH, POSITIONS

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack

_POSITIONS: Mapping[str, str] = {
    "generated": "tokens of the reply",
    "last_prompt+generated": "the last token of the prompt, too, where the reply is begun",
    "prompt": "tokens of the prompt alone",
    "all": "every token",
}


def about_server(
    server: str, model: str, address: str, packs: Sequence[Mapping[str, Any]], **can: bool
) -> dict[str, Any]:
    """All the page has to know.

    Args:
        server: ``"affectlens"`` or ``"vllm"``: whose requests are copied.
        model: As requests name it.
        address: Where requests that are copied go; empty if there is no server to ask.
        packs: Of `about_pack` or `about_listed`, the default first.
        can: ``inspect``: replies and tokens can be looked at. ``token_ids``: streams tell them.
    """
    return {
        "server": server,
        "model": model,
        "address": address,
        "packs": list(packs),
        "can": {"inspect": False, "token_ids": False, **can},
        "options": {
            "positions": [{"name": name, "help": _POSITIONS.get(name, "")} for name in POSITIONS],
            "operator": [_named(OPERATORS[name]) for name in OPERATORS],
        },
        "max_strength": MAX_STRENGTH["recommended"],
    }


def about_pack(name: str, pack: SteeringPack, *, reads: bool = True) -> dict[str, Any]:
    """A pack that is at hand."""
    deciders = pack.deciders
    return {
        "name": name,
        "emotions": list(pack.emotions),
        "modes": list(pack.modes),
        "positions": dict(pack.positions),
        "reads": list(pack.readout.classes) if pack.readout is not None and reads else [],
        "gates": list(deciders.classes) if deciders is not None and reads else [],
        "calibrated": calibrated(pack),
        "plane": plane_of(pack.emotions),
    }


def about_listed(listed: Mapping[str, Any]) -> dict[str, Any]:
    """A pack that only a server's listing tells of: what is not known of it is left out."""
    emotions = [str(one) for one in listed["emotions"]]
    return {
        "name": str(listed["name"]),
        "emotions": emotions,
        "modes": [str(one) for one in listed["modes"]],
        "positions": dict(listed.get("positions") or {}),
        "reads": list(listed.get("reads") or []),
        "gates": list(listed.get("reads") or []),
        "calibrated": None,
        "plane": plane_of(emotions),
    }


def calibrated(pack: SteeringPack) -> dict[str, dict[str, tuple[float, float]]]:
    """By mode and emotion the strengths that tuning has looked into, in recommended doses.

    A recommended dose is the strongest that tuning found worth its cost, so the range ends at 1;
    doses below nothing were not tuned.
    """
    return {
        mode: {emotion: (0.0, 1.0) for emotion, dose in chosen.items() if dose > 0}
        for mode, chosen in pack.recommended.items()
    }


def _named(row: Entry) -> dict[str, str]:
    return {"name": row.name, "help": row.help}
