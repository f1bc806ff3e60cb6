"""Comparing a model with a fine-tune of it, or an adapter at work with the same switched off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Unpack

from affectlens.comparison.agreement import (
    circuit_agreement,
    direction_agreement,
    probe_agreement,
)
from affectlens.comparison.comparison import Comparison
from affectlens.comparison.compatible import (
    Outline,
    check_outlines,
    check_tokens,
    outline_at,
    outline_of,
)
from affectlens.comparison.portrait import Portrait, portray
from affectlens.comparison.settings import ComparisonOptions, ComparisonSettings
from affectlens.core.errors import DataError
from affectlens.core.settings import from_options
from affectlens.models.adapters import adapters_off, is_adapter_folder
from affectlens.models.generation.listeners import refuse_listeners
from affectlens.models.sources import locate

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus
    from affectlens.models.loading import LanguageModel


def compare(
    base: LanguageModel,
    tuned: LanguageModel | None = None,
    corpus: Corpus | None = None,
    **options: Unpack[ComparisonOptions],
) -> Comparison:
    """Set a model beside a fine-tune of it, layer by layer.

    Both read the same tokens. Compared are how well probes tell the emotions apart, how far each
    emotion's direction is the same, and how many units of its circuit are.

    Args:
        base: The model; or, with no other given, a model with an adapter inside, which is compared
            with itself while the adapter is switched off.
        tuned: What was made of it.
        corpus: Emotion-controlled records; default: the authored ``replies``.
        **options: The fields of `ComparisonSettings`: ``template``, ``circuits``, ``budget``,
            ``prompts``, ``penalties``, ``folds``, ``draws``, ``splits``, ``max_tokens_per_batch``,
            ``seed``.

    Raises:
        MismatchError: If layers, width or tokens differ.
        ModelError: If there is no second model, and the first has no adapter at work.
        DataError: If the corpus does not do, or the model is being steered.
        UnknownNameError: If there is no such option or template.
    """
    settings = from_options(ComparisonSettings, options, "compare")
    corpus = corpus or _default_corpus()
    for model in (base, tuned):
        if model is not None:
            refuse_listeners(model.hf, "A comparison")
    if tuned is None:
        return _with_and_without(base, corpus, settings)
    _check((outline_of(base), outline_of(tuned)), corpus, settings)
    writer = tuned if settings.template == "tuned" else base
    first, second = (portray(_reading(x, writer), corpus, settings) for x in (base, tuned))
    return _compared(first, second, corpus, settings)


def compare_sources(
    base: str,
    tuned: str | None = None,
    corpus: Corpus | None = None,
    *,
    load: Mapping[str, Any] | None = None,
    **options: Unpack[ComparisonOptions],
) -> Comparison:
    """The same by names or paths; the models are in memory one after the other.

    Args:
        base, tuned, corpus, **options: As `compare`; a folder with an adapter may stand alone.
        load: Further arguments of `affectlens.models.load_model`, for both.

    Raises:
        As `compare`; what files can tell is told before weights are read.
    """
    from affectlens.models.loading import load_model

    settings = from_options(ComparisonSettings, options, "compare")
    corpus, placed = corpus or _default_corpus(), dict(load or {})
    if tuned is None:
        if not is_adapter_folder(locate(base)):
            raise DataError(
                f"{base} is a model of its own, so name the one to compare it with as well; a "
                "folder with an adapter alone is compared with its base."
            )
        return _with_and_without(load_model(base, **placed), corpus, settings)
    outlines = outline_at(base), outline_at(tuned)
    _check(outlines, corpus, settings)
    tokens = outlines[1 if settings.template == "tuned" else 0].tokenizer
    sides: list[Portrait] = []
    for name in (base, tuned):
        model = load_model(name, tokenizer=tokens, **placed)
        sides.append(portray(model, corpus, settings))
        del model
    return _compared(sides[0], sides[1], corpus, settings)


def _with_and_without(
    model: LanguageModel, corpus: Corpus, settings: ComparisonSettings
) -> Comparison:
    """A model with an adapter inside, and the same with it switched off."""
    with adapters_off(model.hf, model.name):
        base = portray(model, corpus, settings, f"{model.name}, adapter off")
    return _compared(base, portray(model, corpus, settings), corpus, settings)


def _default_corpus() -> Corpus:
    from affectlens.datasets import load

    return load("replies")


def _reading(model: LanguageModel, writer: LanguageModel) -> LanguageModel:
    """The same model, given texts as another one is."""
    if model.text_fingerprint == writer.text_fingerprint:
        return model
    return replace(model, tokenizer=writer.tokenizer, template_variables=writer.template_variables)


def _check(sides: tuple[Outline, Outline], corpus: Corpus, settings: ComparisonSettings) -> None:
    check_outlines(*sides)
    check_tokens(*sides, settings.template, corpus)


def _compared(
    base: Portrait, tuned: Portrait, corpus: Corpus, settings: ComparisonSettings
) -> Comparison:
    draws, seed = settings.draws, settings.seed
    circuits, why = (), base.no_circuit or tuned.no_circuit
    if base.circuit is not None and tuned.circuit is not None:
        if bool((base.circuit.sizes == tuned.circuit.sizes).all()):
            circuits = tuple(circuit_agreement(base.circuit, tuned.circuit))
        else:
            why = "the two models have other numbers of heads or neurons"
    return Comparison(
        base={"name": base.name, "fingerprint": base.fingerprint},
        tuned={"name": tuned.name, "fingerprint": tuned.fingerprint},
        corpus={"name": corpus.name, "fingerprint": corpus.fingerprint},
        majority=base.probes.majority,
        held_out=base.probes.held_out,
        probes=tuple(probe_agreement(base, tuned, draws, seed)),
        directions=tuple(direction_agreement(base, tuned, draws, seed)),
        circuits=circuits,
        no_circuits=why,
        settings=asdict(settings),
    )
