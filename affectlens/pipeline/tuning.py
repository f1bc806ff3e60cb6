"""Measuring strengths on tuning scenarios: all of a mode's strengths and emotions in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from affectlens.core.progress import progress
from affectlens.evaluation import Request, StrengthPoint, generate_replies, measure
from affectlens.steering.spec import SteeringSpec

if TYPE_CHECKING:
    from affectlens.datasets import Record
    from affectlens.pipeline.settings import TuneSettings
    from affectlens.pipeline.stage import StageRun
    from affectlens.steering import SteeringPack


def tuning_points(
    run: StageRun,
    pack: SteeringPack,
    events: Sequence[Record],
    strengths: Mapping[str, Sequence[float]],
) -> list[StrengthPoint]:
    """Accuracy, perplexity ratio and harmonic score of each strength.

    Args:
        run: Model, judges, decoding.
        pack: The vectors.
        events: Neutral prompts of the tuning split.
        strengths: Mode → strengths to try, in natural units.
    """
    settings: TuneSettings = run.settings
    plain = [Request(event, "") for event in events]
    unsteered = generate_replies(run.model, "unsteered", plain, settings.generation)
    points: list[StrengthPoint] = []
    for mode in pack.modes:
        cells = [(s, e) for s in strengths[mode] for e in settings.emotions]
        requests = [
            Request(event, e, SteeringSpec({e: s}, mode=mode, unit="natural"))
            for event in events
            for s, e in cells
        ]
        with progress(f"tuning {mode}", len(requests)) as advance:
            replies = generate_replies(
                run.model, mode, requests, settings.generation, pack=pack, advance=advance
            )
        for i, (s, e) in enumerate(cells):
            found = measure(
                replies[i :: len(cells)],
                unsteered,
                judge=run.judge,
                lexicon=run.lexicon,
                embed=run.embed,
                emotions=(e,),
            )
            points.append(
                StrengthPoint(mode, e, s, found.accuracy, found.perplexity_ratio, found.harmonic)
            )
    return points
