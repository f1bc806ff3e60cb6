"""One side of a comparison: a model's activations, probes, directions and circuit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from affectlens.activations.capture import capture
from affectlens.core.emotions import own_emotions
from affectlens.core.places import Site
from affectlens.probes.fitting import EMBEDDINGS
from affectlens.probes.sweep import Sweep
from affectlens.probes.sweeping import sweep

if TYPE_CHECKING:
    from affectlens.activations.store.store import ActivationStore
    from affectlens.circuits.circuit import Circuit
    from affectlens.comparison.settings import ComparisonSettings
    from affectlens.datasets.schema import Corpus
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel


@dataclass(frozen=True, eq=False)
class Portrait:
    """What a model shows of emotion on a corpus.

    Attributes:
        name: What it was loaded by; with what is switched off, in words.
        fingerprint: Of its weights, adapters that act included.
        n_layers: Its blocks.
        rows: Activations at ``resid_post`` of all layers (and at the embeddings).
        fitting: Those of them that directions may be made from.
        probes: Of every layer, and of the embeddings.
        directions: Of every layer.
        circuit: Of its neurons and heads; None if none was looked for.
        no_circuit: Why there is none, in words; empty if there is one.
    """

    name: str
    fingerprint: str
    n_layers: int
    rows: ActivationStore
    fitting: ActivationStore
    probes: Sweep
    directions: Directions
    circuit: Circuit | None
    no_circuit: str

    @property
    def layers(self) -> tuple[Site, ...]:
        """The output of every block."""
        return tuple(Site(layer, "resid_post") for layer in range(self.n_layers))


def portray(
    model: LanguageModel, corpus: Corpus, settings: ComparisonSettings, name: str | None = None
) -> Portrait:
    """Read a corpus with a model, and find its probes, directions and circuit.

    Directions and circuit are made from the split ``fit`` where the corpus has one; probes are
    scored on the split ``test``, or by nested cross-validation.

    Args:
        model: The model.
        corpus: Emotion-controlled records.
        settings: How.
        name: What to call it; default: its own name.
    """
    from affectlens.geometry.directions import directions

    occurring = corpus.labels()
    emotions = [name for name in own_emotions(corpus.label_set) if name in occurring]
    splits = {record.split for record in corpus}
    fitted = corpus.filter(split="fit") if "fit" in splits else corpus
    posts = [Site(layer, "resid_post") for layer in range(model.n_layers)]
    mids = (
        [Site(layer, "resid_mid") for layer in range(model.n_layers)]
        if model.anatomy.has_resid_mid
        else []
    )
    rows = capture(
        model,
        corpus,
        sites=[EMBEDDINGS, *mids, *posts],
        max_tokens_per_batch=settings.max_tokens_per_batch,
    )
    fitting = rows.select(split="fit") if "fit" in splits else rows
    found = directions(
        fitting,
        emotions=emotions,
        sites=[*mids, *posts],
        splits=settings.splits,
        seed=settings.seed,
    )
    probes = sweep(
        rows,
        sites=[EMBEDDINGS, *posts],
        penalties=settings.penalties,
        folds=settings.folds,
        draws=settings.draws,
        seed=settings.seed,
    )
    circuit, why = _circuit(model, fitted, found, settings)
    return Portrait(
        name=name or model.name,
        fingerprint=model.fingerprint,
        n_layers=model.n_layers,
        rows=rows,
        fitting=fitting,
        probes=probes,
        directions=found,
        circuit=circuit,
        no_circuit=why,
    )


def _circuit(
    model: LanguageModel, corpus: Corpus, found: Directions, settings: ComparisonSettings
) -> tuple[Circuit | None, str]:
    """The circuit, or why there is none."""
    from affectlens.circuits.find import find_circuit, neutral_prompts
    from affectlens.circuits.units import unit_sizes

    if not settings.circuits:
        return None, "not asked for"
    sizes = unit_sizes(model.anatomy)
    if not int(sizes.sum()):
        return None, f"no layer of {model.name} has heads or neurons that can be told apart"
    circuit = find_circuit(
        model,
        corpus,
        found,
        budget=settings.budget.of(sizes),
        score="contrast",
        split=None,
        prompts=neutral_prompts(model, settings.prompts),
        max_tokens_per_batch=settings.max_tokens_per_batch,
    )
    return circuit, ""
