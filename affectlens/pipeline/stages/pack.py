"""The stage ``pack``."""

from __future__ import annotations

from collections.abc import Sequence

from affectlens.pipeline.pack_files import ANALYTIC, MAIN, TUNED, untuned_file
from affectlens.pipeline.settings import PackSettings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.circuit import CIRCUIT, REFINED_CIRCUIT
from affectlens.pipeline.stages.controls import random_units, random_units_refined
from affectlens.pipeline.stages.directions import DIRECTIONS, REFINED_DIRECTIONS
from affectlens.pipeline.stages.probe import PROBES

UNTUNED = untuned_file(MAIN)


def pack(run: StageRun) -> Sequence[str]:
    """Fold directions and circuits into steering packs.

    The pack to use holds the refined directions and circuit, with probes and sizes. Those of the
    controls hold the same before refining, and random units.
    """
    from affectlens.activations import residual_rms
    from affectlens.circuits import Circuit
    from affectlens.geometry import Directions
    from affectlens.models.generation.generation import encode_prompt
    from affectlens.pipeline.expression import spread
    from affectlens.probes import Sweep
    from affectlens.steering import SteeringPack

    settings: PackSettings = run.settings
    events = spread(run.corpus("events").filter(split="fit"), settings.rms_events)
    rms = residual_rms(run.model, [encode_prompt(run.model, event.text) for event in events])
    refined = Directions.load(run.input("directions", REFINED_DIRECTIONS))
    layers = [site.layer for site in refined.sites]

    def of_units(stage: str, file: str) -> SteeringPack:
        return SteeringPack.from_circuit(Circuit.load(run.input(stage, file)), run.model)

    def both(directions: Directions, circuit: str) -> SteeringPack:
        return SteeringPack.merge(
            SteeringPack.from_directions(directions, run.model, layers=layers, rms=rms),
            of_units("circuit", circuit),
        )

    folded = {
        MAIN: both(refined, REFINED_CIRCUIT).with_readout(Sweep.load(run.input("probe", PROBES))),
        ANALYTIC: both(Directions.load(run.input("directions", DIRECTIONS)), CIRCUIT),
        TUNED["random_units_analytic"]: of_units("controls", random_units(1)),
        **{
            TUNED[f"random_units_refined_{draw}"]: of_units("controls", random_units_refined(draw))
            for draw in range(1, settings.draws + 1)
        },
    }
    for name, one in folded.items():
        one.save(run.folder / untuned_file(name))
    return [untuned_file(name) for name in folded]
