"""Every number a run depends on, stage by stage.

A stage gets its settings and knows no other constants; the key under which its result is kept is
made of all fields here, nested ones included. So a new setting is part of the key the moment it
exists, and nothing has to be remembered.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from affectlens.core import EMOTIONS, TONES
from affectlens.evaluation.arms import ARMS, folded_packs
from affectlens.models.devices import pick_device, pick_dtype
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.pipeline.evidence_settings import EvidenceSettings
from affectlens.pipeline.judge_settings import FitJudgeSettings, JudgeSettings
from affectlens.pipeline.own.texts import OwnTexts
from affectlens.pipeline.rules import (
    BUDGET,
    LAYERS,
    MIX,
    PLACEMENT,
    BudgetRule,
    Placement,
    RefineMix,
    SteeredLayers,
)
from affectlens.pipeline.run_config import DEFAULT_MODEL, RunConfig
from affectlens.steering.refine import CIRCUIT, RESIDUAL, RefineSettings

REPLIES = GenerationSettings()
CONTINUATIONS = GenerationSettings(max_new_tokens=26)


def _first_strengths() -> tuple[tuple[str, tuple[float, ...]], ...]:
    return tuple((arm.name, arm.strengths) for arm in ARMS.values() if arm.strengths)


@dataclass(frozen=True)
class ExpressSettings:
    """How the model is made to express each emotion.

    Attributes:
        placement: Of the model.
        emotions: Every group has them all.
        n_events: Scenario-events continued; as many groups as the authored texts give.
        generation: Of the continuations, unsteered and greedy.
    """

    placement: Placement = PLACEMENT
    emotions: tuple[str, ...] = EMOTIONS
    n_events: int = 48
    generation: GenerationSettings = CONTINUATIONS


@dataclass(frozen=True)
class ActivationsSettings:
    """What is read of the model.

    Attributes:
        placement: Of the model.
        position: Where it is read.
        replies_sites: Of the matched replies, for the probes.
        expression_sites: Of the expressed emotions, for the directions. Where a block has no
            ``resid_mid``, it is left out.
        dtype: Of the numbers stored.
        max_tokens_per_batch: Padded tokens of a forward pass; its shape changes rounding.
        overlong: What to do with texts that are too long.
        per_split: At most so many scenarios of each split of the replies; None takes all.
    """

    placement: Placement = PLACEMENT
    position: str = "mean:reply"
    replies_sites: str = "resid_pre@0,resid_post"
    expression_sites: str = "resid_mid,resid_post"
    dtype: str = "float32"
    max_tokens_per_batch: int = 4096
    overlong: str = "error"
    per_split: int | None = None


@dataclass(frozen=True)
class ProbeSettings:
    """How the probes are fitted: see `affectlens.probes.sweep`."""

    probe: str = "logistic"
    classes: tuple[str, ...] = TONES
    penalties: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    folds: int = 5
    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class DirectionsSettings:
    """How directions are found and refined.

    Attributes:
        placement: Of the model.
        emotions: In the order of the directions.
        estimator: A name in `affectlens.geometry.estimators.ESTIMATORS`.
        splits: Of the groups, for the split-half cosines.
        layers: Those that are refined, and steered.
        refine: Of the descent.
        mix: What is descended on.
        seed: Of the splits.
    """

    placement: Placement = PLACEMENT
    emotions: tuple[str, ...] = EMOTIONS
    estimator: str = "group_centred"
    splits: int = 10
    layers: SteeredLayers = LAYERS
    refine: RefineSettings = RESIDUAL
    mix: RefineMix = MIX
    seed: int = 0


@dataclass(frozen=True)
class CircuitSettings:
    """How the circuit is found and refined; arguments as of `affectlens.circuits.find_circuit`.

    ``prompts`` is the number of neutral ones that influence is measured on.
    """

    placement: Placement = PLACEMENT
    budget: BudgetRule = BUDGET
    position: str = "mean:reply"
    score: str = "contrast"
    reference: str = "late"
    prompts: int = 8
    max_tokens_per_batch: int = 4096
    refine: RefineSettings = CIRCUIT
    mix: RefineMix = MIX


@dataclass(frozen=True)
class ControlsSettings:
    """How random units are drawn and refined: as the circuit was, but for the units.

    Attributes:
        placement: Of the model.
        seeds: One per draw.
        refine: Of the descent, the same as the circuit's.
        mix: Likewise.
    """

    placement: Placement = PLACEMENT
    seeds: tuple[int, ...] = (1, 2, 3, 4)
    refine: RefineSettings = CIRCUIT
    mix: RefineMix = MIX


@dataclass(frozen=True)
class PackSettings:
    """How packs are folded.

    Attributes:
        placement: Of the model.
        rms_events: Fitting events on which the size of the residual stream is measured.
        packs: Those that the arms ask for, by name.
    """

    placement: Placement = PLACEMENT
    rms_events: int = 32
    packs: tuple[str, ...] = field(default_factory=lambda: tuple(folded_packs()))


@dataclass(frozen=True)
class TuneSettings:
    """How strengths are chosen.

    Attributes:
        placement: Of the model.
        emotions: Each gets a strength.
        strengths: ``(arm, those tried first)``, in natural units: times the vectors as measured or
            refined; default: those that the arms name.
        extensions: How often a grid may be widened where its best strength lies at its end.
        scenarios: At most so many of the split; None takes all.
        n_events: Events of them that are answered.
        max_perplexity_ratio: Strengths that cost more are not considered, whatever the arm.
        generation: Of all replies.
    """

    placement: Placement = PLACEMENT
    emotions: tuple[str, ...] = EMOTIONS
    strengths: tuple[tuple[str, tuple[float, ...]], ...] = field(default_factory=_first_strengths)
    extensions: int = 2
    scenarios: int | None = None
    n_events: int = 12
    max_perplexity_ratio: float = 4.0
    generation: GenerationSettings = REPLIES


@dataclass(frozen=True)
class EvaluateSettings:
    """What is compared.

    Attributes:
        placement: Of the model.
        arms: Names in `affectlens.evaluation.ARMS`.
        emotions: The targets.
        scenarios: At most so many of the test split; None takes all.
        n_events: Events of them that every arm answers, spread evenly over scenarios and valences:
            the scenario is the unit of all intervals, and a second event of it tells little more.
        backend: What generates.
        generation: The same in every arm.
        ask: System prompt of the prompted arm, with ``{label}``; None: ours.
        seed: Of random directions.
    """

    placement: Placement = PLACEMENT
    arms: tuple[str, ...] = field(default_factory=lambda: tuple(ARMS))
    emotions: tuple[str, ...] = EMOTIONS
    scenarios: int | None = None
    n_events: int = 40
    backend: str = "transformers"
    generation: GenerationSettings = REPLIES
    ask: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class ReportSettings:
    """What the report shows.

    Attributes:
        model: What the user calls it.
        corpus: What the texts are called.
        corpus_title: The same for people.
        notices: What a reader has to know about a user's own texts.
        arms: Those that were evaluated.
        emotions: Their targets.
        backend: What generated them.
        generation: How.
        main: The arm that is compared with all others.
        pairs: More arms to compare, in pairs.
        example_arms: Arms whose replies are shown side by side.
        example_events: Events whose replies are shown side by side.
        top_neurons: Largest contributions shown per block.
        seed: Of the bootstrap.
    """

    model: str = DEFAULT_MODEL
    corpus: str = "authored"
    corpus_title: str = "authored (replies, tones, scenarios)"
    notices: tuple[str, ...] = ()
    arms: tuple[str, ...] = field(default_factory=lambda: tuple(ARMS))
    emotions: tuple[str, ...] = EMOTIONS
    backend: str = "transformers"
    generation: GenerationSettings = REPLIES
    main: str = "circuit"
    pairs: tuple[tuple[str, str], ...] = (("analytic_circuit", "random_units_analytic"),)
    example_arms: tuple[str, ...] = ("prompted", "residual", "circuit")
    example_events: int = 4
    top_neurons: int = 24
    seed: int = 0


@dataclass(frozen=True)
class Settings:
    """The settings of all stages, each under the name of its stage."""

    fit_judge: FitJudgeSettings = field(default_factory=FitJudgeSettings)
    express: ExpressSettings = field(default_factory=ExpressSettings)
    activations: ActivationsSettings = field(default_factory=ActivationsSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    directions: DirectionsSettings = field(default_factory=DirectionsSettings)
    circuit: CircuitSettings = field(default_factory=CircuitSettings)
    evidence: EvidenceSettings = field(default_factory=EvidenceSettings)
    controls: ControlsSettings = field(default_factory=ControlsSettings)
    pack: PackSettings = field(default_factory=PackSettings)
    tune: TuneSettings = field(default_factory=TuneSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    report: ReportSettings = field(default_factory=ReportSettings)

    @classmethod
    def of(cls, config: RunConfig, own: OwnTexts | None = None) -> Settings:
        """Those of a run: the defaults, and what the user asked for put in.

        Args:
            config: What is asked.
            own: The user's own texts, if they are read already.

        Raises:
            DataError: If a run cannot be on those texts.
            UnknownNameError: If there is no such device or dtype.
        """
        device = pick_device(config.device)
        dtype = str(pick_dtype(config.dtype, device)).removeprefix("torch.")
        place, seed = Placement(str(device), dtype), config.seed
        generation = GenerationSettings(max_new_tokens=config.max_new_tokens, seed=seed)
        residual, circuit = replace(RESIDUAL, seed=seed), replace(CIRCUIT, seed=seed)
        found = cls(
            express=ExpressSettings(place),
            activations=ActivationsSettings(place),
            probe=ProbeSettings(seed=seed),
            directions=DirectionsSettings(place, refine=residual, seed=seed),
            circuit=CircuitSettings(place, refine=circuit),
            evidence=EvidenceSettings(place, seed=seed),
            controls=ControlsSettings(place, refine=circuit),
            pack=PackSettings(place),
            tune=TuneSettings(place, scenarios=config.events, generation=generation),
            evaluate=EvaluateSettings(
                place,
                scenarios=config.events,
                backend=config.backend,
                generation=generation,
                seed=seed,
            ),
            judge=JudgeSettings(seed=seed),
            report=ReportSettings(
                config.model, backend=config.backend, generation=generation, seed=seed
            ),
        )
        if config.own is None:
            return found
        from affectlens.pipeline.own.settings import on_own_texts

        return on_own_texts(found, config.own, own or OwnTexts.of(config.own))
