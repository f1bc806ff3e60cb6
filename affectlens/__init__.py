"""AffectLens: find where emotion lives in open language models, and turn it like a dial.

The names below are the public API; each is imported when first used, so that ``import affectlens``
costs nothing::

    import affectlens as al

    model = al.load_model("smollm2-135m-instruct")
    corpus = al.datasets.load("replies").filter(role="direction")
    acts = al.capture(model, corpus, sites="resid_post", positions="mean:reply")
    dirs = al.directions(acts)
    circuit = al.find_circuit(model, corpus, dirs)
    pack = al.SteeringPack.from_circuit(circuit, model)
    with pack.steer(model, "anger=1"):
        print(model.generate("My train was cancelled."))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affectlens import datasets
    from affectlens.activations import ActivationStore, capture, moments
    from affectlens.circuits import Circuit, find_circuit
    from affectlens.core import EMOTIONS, TONES, AffectLensError, Site
    from affectlens.models import LanguageModel, load_model
    from affectlens.pipeline import RunConfig, run
    from affectlens.probes import Directions, Sweep, directions, stream_directions, sweep
    from affectlens.steering import SteeringPack, SteeringSpec

_HOME = {
    "ActivationStore": "activations",
    "AffectLensError": "core",
    "Circuit": "circuits",
    "Directions": "probes",
    "EMOTIONS": "core",
    "LanguageModel": "models",
    "RunConfig": "pipeline",
    "Site": "core",
    "SteeringPack": "steering",
    "SteeringSpec": "steering",
    "Sweep": "probes",
    "TONES": "core",
    "capture": "activations",
    "directions": "probes",
    "find_circuit": "circuits",
    "load_model": "models",
    "moments": "activations",
    "run": "pipeline",
    "stream_directions": "probes",
    "sweep": "probes",
}

__all__ = [
    "EMOTIONS",
    "TONES",
    "ActivationStore",
    "AffectLensError",
    "Circuit",
    "Directions",
    "LanguageModel",
    "RunConfig",
    "Site",
    "SteeringPack",
    "SteeringSpec",
    "Sweep",
    "capture",
    "datasets",
    "directions",
    "find_circuit",
    "load_model",
    "moments",
    "run",
    "stream_directions",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from affectlens.core.artefact import package_version

        return package_version()
    if name == "datasets":
        return importlib.import_module("affectlens.datasets")
    if name in _HOME:
        return getattr(importlib.import_module(f"affectlens.{_HOME[name]}"), name)
    raise AttributeError(f"module 'affectlens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
