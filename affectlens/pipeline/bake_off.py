"""A bake-off over a run folder: its model, its judges, what it has found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core import EMOTIONS
from affectlens.core.errors import DataError
from affectlens.pipeline.backends import backend_of
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.run import writing_alone
from affectlens.pipeline.run_config import RunConfig
from affectlens.pipeline.run_material import RunMaterial, require_run

if TYPE_CHECKING:
    from affectlens.evaluation.backends import Backend, Ids
    from affectlens.evaluation.bakeoff import BakeOff, BakeOffSettings
    from affectlens.steering import SteeringPack

FOLDER = "bakeoff"


def bake_off_run(
    config: RunConfig,
    settings: BakeOffSettings,
    *,
    folder: Path | None = None,
    told: Callable[[str, str], object] = lambda _method, _what: None,
) -> tuple[BakeOff, Path]:
    """Compare methods on the model of a finished run, and write the tables.

    Args:
        config: Of the run: model, folder, device and number format.
        settings: What is compared.
        folder: Where texts, vectors and tables are kept; default: ``bakeoff`` in the run folder.
        told: See `affectlens.evaluation.bakeoff.bake_off`.

    Returns:
        What was found, and the folder.

    Raises:
        ArtefactError: If the run is not finished, or another process works in the folder.
        DataError: If the run is on labels that the judge does not know.
        AffectLensError: As `bake_off`.
    """
    from affectlens.evaluation.backends import BACKENDS
    from affectlens.evaluation.bakeoff import Generating, Jury, bake_off
    from affectlens.geometry import Directions
    from affectlens.pipeline.stages.directions import DIRECTIONS

    require_run(config.out)
    made = Directions.load(config.out / DIRECTIONS)
    strange = [emotion for emotion in made.emotions if emotion not in EMOTIONS]
    if strange:
        raise DataError(
            f"The run in {config.out} is on labels of its own ({strange[0]}, …), which the judge "
            "of a bake-off does not know; give a run on our emotions."
        )
    target = folder or config.out / FOLDER
    context = RunContext(config)
    with writing_alone(target):
        material = RunMaterial(config.out, context.model, target)
        jury = Jury(context.judge, context.lexicon, context.embed, material.openers)
        kind = BACKENDS[config.backend]
        place = config.url or config.vllm_python or ""

        def opened(
            packs: Mapping[Path, SteeringPack], prompt: Ids
        ) -> AbstractContextManager[Backend]:
            return backend_of(config, context.model, packs, prompt, target)

        found = bake_off(
            material, jury, target, settings, generating=Generating(kind, place, opened), told=told
        )
        found.save(target)
    return found, target


def model_of(run: Path) -> str:
    """Name of the model of a run.

    Raises:
        ArtefactError: If the run has no directions.
    """
    from affectlens.geometry import Directions
    from affectlens.pipeline.stages.directions import DIRECTIONS

    require_run(run)
    return Directions.load(run / DIRECTIONS).provenance.model_name
