"""A walk from records to a steered reply goes from package to package and never climbs back."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import affectlens as al
from affectlens.circuits import Budget
from tests.conftest import make_tiny
from tests.test_layers import RANK

HANDED_DOWN = {
    ("core", "activations"): "settings are made of keywords in one place",
    ("core", "geometry"): "the same",
    ("core", "probes"): "the same",
    ("core", "circuits"): "the same",
    ("activations", "circuits"): "the engine that reads units, and the sink that takes their means",
    ("models", "activations"): "hooks that read",
    ("models", "circuits"): "hooks that read",
    ("models", "steering"): "hooks that write, and what listens to a generation",
}
"""Who calls a function that a package further right has given it, without knowing whose it is."""

BETWEEN = ("jaxtyping", "beartype", "contextlib", "functools", "<")
"""Modules whose frames stand between a caller and what it calls."""


def place(frame: FrameType | None) -> tuple[int, str] | None:
    """Rank and name of the package that a frame runs in; None if it is not ours."""
    name = frame.f_globals.get("__name__", "") if frame is not None else ""
    parts = name.split(".")
    if parts[0] != "affectlens" or len(parts) < 2 or parts[1] not in RANK:
        return None
    return RANK[parts[1]], name


def package(at: tuple[int, str]) -> str:
    return at[1].split(".")[1]


class Watching:
    """Notes every call between functions of ours that goes to a package further right."""

    def __init__(self) -> None:
        self.climbs: dict[tuple[str, str], str] = {}
        self.entered: list[str] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or (here := place(frame)) is None:
            return
        back = frame.f_back
        while back is not None and back.f_globals.get("__name__", "").startswith(BETWEEN):
            back = back.f_back
        caller = place(back)
        if caller and here[0] > caller[0]:
            self.climbs.setdefault((package(caller), package(here)), f"{caller[1]} → {here[1]}")
        if back is not None and back.f_globals is globals():
            self.entered.append(package(here))


def walk(model: al.LanguageModel) -> str:
    corpus = al.datasets.load("replies").filter(role="direction", emotion=("anger", "fear"))
    few = tuple(r for r in corpus if r.scenario in corpus.scenarios()[:6])
    corpus = type(corpus)("few", corpus.design, few)
    acts = al.capture(model, corpus, sites="resid_post", positions="mean:reply")
    directions = al.directions(acts, emotions=("anger", "fear"))
    al.sweep(acts, folds=3, draws=10, penalties=(0.1,), sites="resid_post@1")
    circuit = al.find_circuit(
        model, corpus, directions, budget=Budget(total=6, neuron_share=0.5), split=None
    )
    pack = al.SteeringPack.from_circuit(circuit, model)
    with pack.steer(model, "anger=1"):
        return model.generate("My train was cancelled.", max_new_tokens=2)


def test_the_walk_never_climbs() -> None:
    model = make_tiny("llama", max_position_embeddings=1024)
    watching = Watching()
    sys.setprofile(watching)
    try:
        walk(model)
    finally:
        sys.setprofile(None)
    order = list(dict.fromkeys(name for name in watching.entered if name in RANK))
    ranks = [RANK[name] for name in order if name != "models"]
    assert ranks == sorted(ranks), order
    assert {"datasets", "activations", "geometry", "probes", "circuits", "steering"} <= set(order)
    new = {pair: where for pair, where in watching.climbs.items() if pair not in HANDED_DOWN}
    assert not new, "calls climb back up"
    assert ("models", "steering") in watching.climbs  # what steers is there at all


def test_the_watch_sees_a_climb() -> None:
    assert RANK["pipeline"] > RANK["core"]
    watching = Watching()
    from affectlens.core.registry import Registry

    table = Registry("toy")
    scope = {"__name__": "affectlens.pipeline.toy"}
    exec("class Row:\n  help = ''\n  @property\n  def name(self): return 'toy'", scope)
    sys.setprofile(watching)
    try:
        table.add(scope["Row"]())
    finally:
        sys.setprofile(None)
    assert ("core", "pipeline") in watching.climbs.keys() - HANDED_DOWN.keys()
