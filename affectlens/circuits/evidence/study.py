"""What a circuit is tested with, and each test of it with these settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from affectlens.circuits.evidence.ablation import AblationSettings, ablate
from affectlens.circuits.evidence.core import CoreCost, core_cost
from affectlens.circuits.evidence.curve import AblationCurve, EnhancementCurve
from affectlens.circuits.evidence.enhancement import EnhancementSettings, enhance
from affectlens.circuits.evidence.faithfulness import FaithfulnessSettings, faithfulness
from affectlens.circuits.evidence.faithfulness_curve import FaithfulnessCurve
from affectlens.circuits.evidence.identity import Confusion, IdentitySettings, identity
from affectlens.circuits.evidence.minimality import Minimality, MinimalitySettings, minimality
from affectlens.circuits.evidence.ranked_anew import (
    in_other_words,
    ranked_by,
    require_again,
    scores_of_parts,
)
from affectlens.circuits.evidence.replacements import tone_samples
from affectlens.circuits.evidence.stability import Stability, StabilitySettings, stability
from affectlens.circuits.evidence.untrained import transplanted, untrained
from affectlens.core.artefact import fingerprint
from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.circuit import Circuit
    from affectlens.circuits.tasks.base import Task
    from affectlens.datasets.schema import Corpus
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel


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
        paraphrases: The contents of ``corpus``, by scenario, in other words: stability asks whether
            they give the same units.
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
    paraphrases: Corpus | None = None

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

    def require_again(self) -> None:
        """Refuse stability before anything is run.

        Raises:
            DataError: See `affectlens.circuits.evidence.ranked_anew`.
        """
        require_again(self.circuit, self.directions)
        if self.paraphrases is not None:
            in_other_words(self.corpus, self.paraphrases)

    @cached_property
    def chosen_anew(self) -> Stability:
        """Stability.

        Raises:
            DataError: See `affectlens.circuits.evidence.ranked_anew.scores_of_parts`.
        """
        asked = self.settings.stability
        corpora = [self.corpus]
        if self.paraphrases is not None:
            corpora = in_other_words(self.corpus, self.paraphrases)
        given = (self.means, self.directions, asked.folds)
        scores = [scores_of_parts(self.model, self.circuit, one, *given) for one in corpora]
        return stability(
            self.circuit,
            scores[0],
            asked,
            paraphrased=scores[1] if len(scores) > 1 else None,
            texts=len(corpora[0]),
            ranking=ranked_by(self.circuit),
        )

    def core_alone(self) -> CoreCost:
        """What the units that samples of the texts agree on keep alone."""
        asked = self.settings.faithfulness
        samples = self.samples if asked.by == "resample" else None
        task = self.small or self.task
        given = (self.model, task, self.circuit, self.means, self.chosen_anew)
        return core_cost(*given, asked, samples)

    def require_untrained(self) -> None:
        """Refuse the untrained model before anything is run.

        Raises:
            DataError: If the task cannot be made for it.
        """
        if self.again is None:
            raise DataError("The untrained model needs the task made anew for it; give `again`.")

    def without_training(self) -> AblationCurve:
        """The ablation in the untrained model.

        Raises:
            DataError: If the task cannot be made for it.
        """
        self.require_untrained()
        assert self.again is not None
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
        texts = [self.corpus.fingerprint, self.paraphrases and self.paraphrases.fingerprint]
        made_of = [*made_of, *tasks, *filter(None, texts), directions]
        return fingerprint(self.model.fingerprint, made_of, asdict(self.settings))
