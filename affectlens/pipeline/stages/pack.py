"""The stage ``pack``."""

from __future__ import annotations

from collections.abc import Sequence

from affectlens.pipeline.settings import PackSettings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.circuit import REFINED_CIRCUIT
from affectlens.pipeline.stages.directions import REFINED_DIRECTIONS
from affectlens.pipeline.stages.probe import PROBES

UNTUNED = "pack_untuned.safetensors"


def pack(run: StageRun) -> Sequence[str]:
    """Fold refined directions and circuit into one steering pack, with probes and sizes."""
    from affectlens.activations import residual_rms
    from affectlens.circuits import Circuit
    from affectlens.models.generation import encode_prompt
    from affectlens.pipeline.expression import spread
    from affectlens.probes import Directions, Sweep
    from affectlens.steering import SteeringPack

    settings: PackSettings = run.settings
    events = spread(run.corpus("events").filter(split="fit"), settings.rms_events)
    rms = residual_rms(run.model, [encode_prompt(run.model, event.text) for event in events])
    refined = Directions.load(run.input("directions", REFINED_DIRECTIONS))
    units = Circuit.load(run.input("circuit", REFINED_CIRCUIT))
    folded = SteeringPack.merge(
        SteeringPack.from_directions(
            refined, run.model, layers=[site.layer for site in refined.sites], rms=rms
        ),
        SteeringPack.from_circuit(units, run.model),
    )
    folded = folded.with_readout(Sweep.load(run.input("probe", PROBES)))
    folded.save(run.folder / UNTUNED)
    return [UNTUNED]
