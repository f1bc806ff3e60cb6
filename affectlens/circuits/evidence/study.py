"""All tests of a circuit, part by part, and the verdict; what is done is not done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.circuits.evidence.ablation import AblationSettings, ablate
from affectlens.circuits.evidence.curve import AblationCurve, EnhancementCurve
from affectlens.circuits.evidence.enhancement import EnhancementSettings, enhance
from affectlens.circuits.evidence.faithfulness import FaithfulnessSettings, faithfulness
from affectlens.circuits.evidence.faithfulness_curve import FaithfulnessCurve
from affectlens.circuits.evidence.identity import Confusion, IdentitySettings, identity
from affectlens.circuits.evidence.minimality import Minimality, MinimalitySettings, minimality
from affectlens.circuits.evidence.replacements import tone_samples
from affectlens.circuits.evidence.stability import (
    Stability,
    StabilitySettings,
    fold_scores,
    stability,
)
from affectlens.circuits.evidence.untrained import transplanted, untrained
from affectlens.circuits.verdict import Evidence, Finding
from affectlens.core.artefact import Provenance, fingerprint, read_json, write_json
from affectlens.core.errors import ArtefactError, DataError
from affectlens.core.registry import Registry

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.circuit import Circuit
    from affectlens.circuits.tasks.base import Task
    from affectlens.datasets.schema import Corpus
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel

VERDICT = "evidence.json"
DONE = "done.json"


@dataclass(frozen=True)
class StudySettings:
    """Of every part.

    Attributes:
        ablation, enhancement, faithfulness, identity, stability, minimality: See there.
        position: Where the means of units are read.
    """

    ablation: AblationSettings = field(default_factory=AblationSettings)
    enhancement: EnhancementSettings = field(default_factory=EnhancementSettings)
    faithfulness: FaithfulnessSettings = field(default_factory=FaithfulnessSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    stability: StabilitySettings = field(default_factory=StabilitySettings)
    minimality: MinimalitySettings = field(default_factory=MinimalitySettings)
    position: str = "mean:reply"


@dataclass(frozen=True)
class Study:
    """What a circuit is tested with.

    Attributes:
        model: The model.
        circuit: Of it.
        task: Texts that gave neither circuit nor means.
        corpus: Replies that means and values of units are taken of.
        settings: Of every part.
        directions: That the circuit was found with; None leaves stability untested.
        small: Fewer of its texts, for the parts in which whole circuits or all other units are
            changed; default: the task.
        again: Makes the task for another model, for the untrained one; None leaves that out.
    """

    model: LanguageModel
    circuit: Circuit
    task: Task
    corpus: Corpus
    settings: StudySettings = StudySettings()
    directions: Directions | None = None
    small: Task | None = None
    again: Callable[[LanguageModel], Task] | None = None

    @cached_property
    def means(self) -> UnitMeans:
        """Of the model's units."""
        return self._means(self.model)

    @cached_property
    def samples(self) -> dict[str, dict[str, Any]]:
        """Values at tokens of each tone."""
        return tone_samples(self.model, self.corpus, self.task.emotions)

    def _means(self, model: LanguageModel) -> UnitMeans:
        from affectlens.circuits.attribution.mean_pass import unit_means

        where = self.settings.position
        return unit_means(model, self.corpus, self.task.emotions, position=where)

    def ablated(self, **changes: Any) -> AblationCurve:
        """The ablation, with some settings changed."""
        asked = replace(self.settings.ablation, **changes)
        samples = self.samples if asked.by == "resample" else None
        return ablate(self.model, self.task, self.circuit, self.means, asked, samples)

    def heads(self, **changes: Any) -> AblationCurve:
        """The ablation of heads, of as many as there are for each emotion."""
        most = min(len(self.circuit.heads[e]) for e in self.circuit.emotions)
        counts = tuple(n for n in self.settings.ablation.counts if n <= most)
        return self.ablated(kind="heads", counts=counts or (most,), **changes)

    def enhanced(self) -> EnhancementCurve:
        """The enhancement."""
        asked = self.settings.enhancement
        samples = self.samples if asked.to == "patch" else None
        return enhance(self.model, self.task, self.circuit, self.means, asked, samples)

    def left_alone(self) -> FaithfulnessCurve:
        """Faithfulness."""
        asked = self.settings.faithfulness
        samples = self.samples if asked.by == "resample" else None
        return faithfulness(
            self.model, self.small or self.task, self.circuit, self.means, asked, samples
        )

    def chosen(self) -> Confusion:
        """Identity or salience."""
        asked = self.settings.identity
        samples = self.samples if asked.to == "patch" else None
        return identity(
            self.model, self.small or self.task, self.circuit, self.means, asked, samples
        )

    def given_back(self) -> Minimality:
        """Minimality."""
        asked = self.settings.minimality
        return minimality(self.model, self.task, self.circuit, self.means, asked)

    def chosen_anew(self) -> Stability:
        """Stability.

        Raises:
            DataError: If the directions that the circuit was found with are missing.
        """
        if self.directions is None:
            raise DataError(
                "Stability needs the directions that the circuit was found with; name them, or "
                "leave this part out."
            )
        asked = self.settings.stability
        scores = fold_scores(
            self.model,
            self.corpus,
            self.directions,
            folds=asked.folds,
            position=self.settings.position,
        )
        return stability(self.circuit, scores, asked, len(self.corpus))

    def without_training(self) -> AblationCurve:
        """The ablation in the untrained model.

        Raises:
            DataError: If the task cannot be made for it.
        """
        if self.again is None:
            raise DataError("The untrained model needs the task made anew for it; give `again`.")
        fresh = untrained(self.model, self.settings.ablation.seed)
        there = transplanted(self.circuit, fresh)
        asked = replace(self.settings.ablation, by="mean")
        return ablate(fresh, self.again(fresh), there, self._means(fresh), asked)

    @property
    def key(self) -> str:
        """Hash of all that any part depends on."""
        directions = self.directions and self.directions.provenance.fingerprint
        made_of = [self.circuit.units_fingerprint, self.circuit.provenance.fingerprint]
        tasks = [self.task.name, self.task.fingerprint, self.small and self.small.fingerprint]
        made_of = [*made_of, *tasks, self.corpus.fingerprint, directions]
        return fingerprint(self.model.fingerprint, made_of, asdict(self.settings))


Result = AblationCurve | EnhancementCurve | FaithfulnessCurve | Confusion | Stability | Minimality


@dataclass(frozen=True)
class Part:
    """A row of `PARTS`.

    Attributes:
        name: Also of its file.
        help: One line.
        kind: What it makes.
        run: Makes it.
        says: Whether its findings are part of the verdict.
    """

    name: str
    help: str
    kind: type[Result]
    run: Callable[[Study], Result]
    says: bool = False

    @property
    def file(self) -> str:
        """Where it lies in the folder."""
        return f"{self.name}.safetensors"


PARTS: Registry[Part] = Registry(
    "part of the evidence",
    Part(
        "ablation",
        "how far margins fall without the highest units, by their means: necessary, specific",
        AblationCurve,
        lambda study: study.ablated(kind="neurons", by="mean"),
        says=True,
    ),
    Part(
        "faithfulness",
        "how much the circuit keeps alone, with CPR beside CMD: sufficient",
        FaithfulnessCurve,
        lambda study: study.left_alone(),
        says=True,
    ),
    Part(
        "stability",
        "whether other texts give the same units: stable",
        Stability,
        lambda study: study.chosen_anew(),
        says=True,
    ),
    Part(
        "identity",
        "which tone is gone on with once an emotion's units are set in texts of another",
        Confusion,
        lambda study: study.chosen(),
    ),
    Part(
        "enhancement",
        "how far margins rise towards an emotion once its units are set in texts of another",
        EnhancementCurve,
        lambda study: study.enhanced(),
    ),
    Part(
        "minimality",
        "whether each unit does more than one that does not belong",
        Minimality,
        lambda study: study.given_back(),
    ),
    Part(
        "resampling",
        "the ablation with values at tokens of other tones",
        AblationCurve,
        lambda study: study.ablated(kind="neurons", by="resample"),
    ),
    Part(
        "heads",
        "the ablation of heads",
        AblationCurve,
        lambda study: study.heads(by="mean"),
    ),
    Part(
        "untrained",
        "the ablation in the same model before training",
        AblationCurve,
        lambda study: study.without_training(),
    ),
)
"""All parts; those that decide the verdict first."""


def gather(
    study: Study,
    folder: Path,
    parts: Sequence[str],
    on_part: Callable[[str, str], None] = lambda _name, _what: None,
    *,
    anew: bool = False,
) -> Evidence:
    """Run the parts that are missing, and put together the verdict.

    Args:
        study: What the circuit is tested with.
        folder: Where the parts are kept; a part that is there, of the same study, is read.
        parts: Names in :data:`PARTS`.
        on_part: Told of each part ``"started"``, ``"done"`` or ``"kept"``.
        anew: Measure again what is there.

    Returns:
        Also written to ``evidence.json`` in the folder.

    Raises:
        UnknownNameError: If there is no such part.
        DataError, MismatchError: See the parts.
    """
    rows = [PARTS[name] for name in dict.fromkeys(parts)]
    done = _done(folder)
    findings: dict[str, dict[str, Finding]] = {e: {} for e in study.circuit.emotions}
    inputs = dict[str, str]()
    for row in rows:
        key = fingerprint(row.name, study.key)
        made = _kept(row, folder) if done.get(row.name) == key and not anew else None
        if made is None:
            on_part(row.name, "started")
            made = row.run(study)
            made.save(folder / row.file)
            done = {**_done(folder), row.name: key}
            write_json(folder / DONE, done)
            on_part(row.name, "done")
        else:
            on_part(row.name, "kept")
        inputs[row.name] = made.provenance.fingerprint
        if row.says and isinstance(made, AblationCurve | FaithfulnessCurve | Stability):
            for emotion, words in made.findings().items():
                for word, found in words.items():
                    findings[emotion].setdefault(word, replace(found, file=row.file))
    evidence = Evidence(
        study.circuit.units_fingerprint,
        findings,
        Provenance(
            "evidence",
            model=study.model.fingerprint,
            model_name=study.model.name,
            corpus=study.task.fingerprint,
            parameters={"task": study.task.name, **asdict(study.settings)},
            inputs=inputs,
        ),
    )
    evidence.save(folder / VERDICT)
    return evidence


def load_parts(folder: Path) -> dict[str, Result]:
    """The parts that lie in a folder, by name.

    Raises:
        ArtefactError: If one is damaged.
    """
    there = [row for row in PARTS.values() if (folder / row.file).is_file()]
    return {row.name: row.kind.load(folder / row.file) for row in there}


def _kept(row: Part, folder: Path) -> Result | None:
    try:
        return row.kind.load(folder / row.file)
    except ArtefactError:  # cut short: made anew
        return None


def _done(folder: Path) -> Mapping[str, str]:
    try:
        return dict(read_json(folder / DONE))
    except (ArtefactError, TypeError, ValueError):
        return {}
