"""What a finished run has found in a model, as steering methods want it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core.artefact import file_fingerprint, fingerprint
from affectlens.core.errors import ArtefactError, DataError
from affectlens.core.places import Site
from affectlens.pipeline.corpus_files import EXPRESSION, load_corpus, mixed
from affectlens.pipeline.pack_files import untuned_file
from affectlens.pipeline.rules import RefineMix
from affectlens.pipeline.stages.activations import FOLDER as ACTIVATIONS
from affectlens.pipeline.stages.circuit import CIRCUIT, REFINED_CIRCUIT
from affectlens.pipeline.stages.controls import random_units_refined
from affectlens.pipeline.stages.directions import DIRECTIONS, REFINED_DIRECTIONS
from affectlens.pipeline.stages.probe import PROBES

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from affectlens.activations import ActivationStore
    from affectlens.circuits import Circuit
    from affectlens.datasets import Corpus
    from affectlens.geometry import Directions
    from affectlens.models import LanguageModel
    from affectlens.probes import Sweep
    from affectlens.steering.methods import Turns
    from affectlens.steering.refine import RefineSettings

NEEDED = (
    EXPRESSION,
    DIRECTIONS,
    REFINED_DIRECTIONS,
    CIRCUIT,
    REFINED_CIRCUIT,
    random_units_refined(1),
    PROBES,
    untuned_file("pack"),
)
"""Files of a run that methods are made of, beside its activations."""


def require_run(folder: Path) -> None:
    """Refuse a folder that no run has filled so far that methods can be made.

    Raises:
        ArtefactError: Naming what is missing and the command that makes it.
    """
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise ArtefactError(
            f"{folder} lacks {missing[0]}, of which methods are made; run `affectlens pack --out "
            f"{folder}` first (or `affectlens run`)."
        )


@dataclass(frozen=True, eq=False)
class RunMaterial:
    """`affectlens.steering.methods.Material` of a run folder, which is only read.

    Attributes:
        folder: Of the run.
        model: Of the run.
        kept: Where head outputs are kept, which a run does not read.

    Raises:
        ArtefactError: If a file is missing or damaged.
        MismatchError: If it is a run of another model.
    """

    folder: Path
    model: LanguageModel
    kept: Path

    def __post_init__(self) -> None:
        require_run(self.folder)
        made_by = self.directions(refined=False).provenance
        made_by.require_model(self.model.fingerprint, self.model.name)

    @property
    def fingerprint(self) -> str:
        """Of the files that vectors are made of."""
        files = {name: file_fingerprint(self.folder / name) for name in NEEDED}
        return fingerprint(files, self.expression.fingerprint, self.matched.fingerprint)

    @property
    def emotions(self) -> tuple[str, ...]:
        """Those of the directions."""
        return self._refined.emotions

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks whose directions were refined."""
        return tuple(site.layer for site in self._refined.sites)

    @property
    def rms(self) -> Float[Tensor, " n_layers"] | None:
        """As the run's pack has it."""
        from affectlens.steering import SteeringPack

        return SteeringPack.load(self.folder / untuned_file("pack")).rms

    @property
    def sweep(self) -> Sweep:
        """The run's probes."""
        from affectlens.probes import Sweep

        return Sweep.load(self.folder / PROBES)

    @property
    def expression(self) -> ActivationStore:
        """The run's store of expressed emotions."""
        return self._store("expression")

    @property
    def matched(self) -> ActivationStore:
        """The run's store of matched replies, of groups that give directions."""
        return self._store("replies").select(role="direction")

    @property
    def neutral_rows(self) -> ActivationStore:
        """The neutral ones among them."""
        from affectlens.core.emotions import NEUTRAL

        return self.matched.select(emotion=NEUTRAL)

    def _store(self, name: str) -> ActivationStore:
        from affectlens.activations import ActivationStore

        return ActivationStore.open(self.folder / ACTIVATIONS / name)

    @property
    def heads(self) -> ActivationStore:
        """Head outputs over the expressed emotions; captured when first asked for, and kept."""
        from affectlens.activations import capture

        return capture(
            self.model,
            self._expressed,
            sites=[Site(part.layer, "z") for part in self.model.anatomy.blocks if part.n_heads],
            positions=self.expression.default_position(None),
            dtype="float32",
            out=self.kept / "heads",
            resume=True,
            force=True,
        )

    @property
    def corpora(self) -> Sequence[Corpus]:
        """What the run refined its vectors on, in the run's style."""
        from affectlens.datasets import load
        from affectlens.pipeline.styles import STYLES
        from affectlens.steering.refine.replies import fingerprints

        wanted = self._refined.provenance.parameters["refined_on"]
        replies = load("replies").filter(role="direction", emotion=self.emotions)
        for style in STYLES:
            found = mixed(self._expressed, replies, RefineMix(style=style))
            if fingerprints(found) == wanted:
                return found
        raise DataError(
            f"The texts that the vectors in {self.folder} were refined on are not those of this "
            "version and its styles; run again."
        )

    def descent(self, place: str) -> RefineSettings:
        """The run's: as many steps on as many texts, with the rate that suits the place."""
        from affectlens.steering.refine.settings import CIRCUIT as UNITS
        from affectlens.steering.refine.settings import RefineSettings

        told: dict[str, Any] = dict(self._refined.provenance.parameters["refined"])
        told["strengths"] = tuple(told["strengths"])
        found = RefineSettings(**told)
        if place == "residual":
            return found
        return replace(found, learning_rate=UNITS.learning_rate, start=UNITS.start)

    def directions(self, *, refined: bool) -> Directions:
        """As estimated, or refined."""
        return self._refined if refined else self._estimated

    @cached_property
    def _refined(self) -> Directions:
        from affectlens.geometry import Directions

        return Directions.load(self.folder / REFINED_DIRECTIONS)

    @cached_property
    def _estimated(self) -> Directions:
        from affectlens.geometry import Directions

        return Directions.load(self.folder / DIRECTIONS)

    @cached_property
    def _expressed(self) -> Corpus:
        return load_corpus(self.folder / EXPRESSION)

    @property
    def openers(self) -> tuple[str, ...]:
        """First sentences that the expressed emotions begin with."""
        from affectlens.pipeline.expression import openers_of

        return openers_of(self._expressed)

    def circuit(self, *, refined: bool) -> Circuit:
        """As found, or refined."""
        return self._units(REFINED_CIRCUIT if refined else CIRCUIT)

    def random_units(self) -> Circuit:
        """The first draw, refined."""
        return self._units(random_units_refined(1))

    def _units(self, file: str) -> Circuit:
        from affectlens.circuits import Circuit

        return Circuit.load(self.folder / file)

    def examples(self, emotion: str, count: int) -> Turns:
        """Matched replies of groups that give directions, of different scenarios."""
        from affectlens.datasets import load, spread

        found = spread(load("replies").filter(role="direction", emotion=emotion), count)
        return tuple((r.messages[-2].content, r.messages[-1].content) for r in found)
