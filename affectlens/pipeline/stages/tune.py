"""The stage ``tune``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from affectlens.core.artefact import write_json
from affectlens.pipeline.pack_files import tuned_file, untuned_file
from affectlens.pipeline.settings import TuneSettings
from affectlens.pipeline.stage import StageRun

TUNING = "tuning.json"


def tune(run: StageRun) -> Sequence[str]:
    """Choose a strength per arm and emotion; arms that a stopped run has measured are kept.

    The mode of the pack that is heard best without feeling words becomes its default, and what was
    heard at each strength its first calibration (``unit=heard``).
    """
    from affectlens.evaluation import ARMS, best_arm, beyond, choose_strengths
    from affectlens.evaluation.arms import MAIN, folded_packs, pack_to_tune
    from affectlens.evaluation.intensity import tuned_responses
    from affectlens.evaluation.strength_search import StrengthSearch
    from affectlens.pipeline.tuning_files import ArmPoints
    from affectlens.steering import SteeringPack

    settings: TuneSettings = run.settings
    limit = settings.max_perplexity_ratio
    packs = {
        name: SteeringPack.load(run.input("pack", untuned_file(name))) for name in folded_packs()
    }
    arms = [
        ArmPoints(run, arm, grid, packs[pack_to_tune(arm).name]) for arm, grid in settings.strengths
    ]
    measured = {arm.arm: known for arm in arms if (known := arm.known()) is not None}
    left = [arm for arm in arms if arm.arm not in measured]
    if left:
        events = run.spread_events("tune")
        search = StrengthSearch(run.model, run.judge, run.lexicon, run.embed, settings, events)
        search = search.started()
        for arm in left:
            measured[arm.arm] = search.search(arm.arm, arm.pack, arm.strengths)
            arm.save(measured[arm.arm])
    points = [point for arm in arms for point in measured[arm.arm]]
    chosen = choose_strengths(points, max_perplexity_ratio=limit)
    at_end = [list(key) for key in beyond(points, chosen, max_perplexity_ratio=limit)]
    write_json(
        run.folder / TUNING,
        {"points": [asdict(p) for p in points], "chosen": chosen, "at_end": at_end},
    )
    for arm, strengths in chosen.items():
        name = pack_to_tune(arm).name
        packs[name] = packs[name].with_recommended(ARMS[arm].mode, strengths)
    main = [arm for arm in chosen if pack_to_tune(arm) is MAIN]
    for arm in main:
        if heard := tuned_responses(points, arm, max_perplexity_ratio=limit):
            mode = ARMS[arm].mode
            packs[MAIN.name] = packs[MAIN.name].with_responses("heard", mode, heard)
    if (best := best_arm(points, chosen, main)) is not None:
        packs[MAIN.name] = packs[MAIN.name].with_first(ARMS[best].mode)
    for name, pack in packs.items():
        pack.save(run.folder / tuned_file(name))
    return [TUNING, *map(tuned_file, packs)]
