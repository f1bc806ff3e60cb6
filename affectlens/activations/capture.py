"""Capture: a corpus through a model, any sites at any positions, in one pass per batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, Unpack

from affectlens.activations.forward.engines import Engine, open_engine
from affectlens.activations.forward.in_memory import MemorySink
from affectlens.activations.forward.plan import CapturePlan, make_plan
from affectlens.activations.forward.run import Advance, Sink, run_shards
from affectlens.activations.forward.tokenised import read_texts
from affectlens.activations.positions import DEFAULT_POSITIONS, Position, parse_positions
from affectlens.activations.settings import CaptureOptions, CaptureSettings, PassSettings
from affectlens.activations.store.folder import Folder
from affectlens.activations.store.shards import ShardWriter, StoreSpec, bytes_per_row, shard_size
from affectlens.activations.store.store import ActivationStore
from affectlens.activations.store.writer import opened_for_writing, read_layout
from affectlens.core.artefact import Provenance, package_version
from affectlens.core.errors import DataError
from affectlens.core.places import Site, expand_sites
from affectlens.core.progress import progress
from affectlens.core.settings import from_options, identity
from affectlens.datasets.schema import Corpus
from affectlens.models.generation.listeners import listeners
from affectlens.models.loading import LanguageModel

CAPTURE_VERSION = 3
"""Goes up whenever the same request would give other numbers; stores of another are refused."""

Sites = str | Site | Iterable[str | Site]
"""As `affectlens.core.places.expand_sites` takes them."""

C = TypeVar("C", bound=CaptureSettings)

_DEFAULT = CaptureSettings()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A capture that only has to be run.

    Attributes:
        model: The model.
        engine: Runs it.
        plan: What is run.
        settings: How.
        provenance: What the result is made by.
        facts: What a store says of itself beyond its provenance.
        layout: What the plan was cut by.
    """

    model: LanguageModel
    engine: Engine
    plan: CapturePlan
    settings: CaptureSettings
    provenance: Provenance
    facts: Mapping[str, Any]
    layout: Mapping[str, int]

    @property
    def spec(self) -> StoreSpec:
        """What a store of it holds."""
        return StoreSpec(
            provenance=self.provenance,
            dtype=self.settings.dtype,
            widths=self.plan.widths,
            shards=tuple(self.plan.shard_rows(i) for i in range(len(self.plan.shards))),
            layout=self.layout,
            facts=self.facts,
            record_of=self.plan.record_of,
        )

    def run(
        self,
        sink: Sink,
        shards: Iterable[int] | None = None,
        *,
        description: str = "Reading activations",
        advance: Advance = lambda _texts, _tokens: None,
    ) -> None:
        """Run some shards (all of them if None) and show progress in tokens."""
        wanted = range(len(self.plan.shards)) if shards is None else list(shards)
        total = sum(self.plan.shard_tokens(i) for i in wanted)
        with progress(description, total, unit="tokens") as show:

            def told(texts: int, tokens: int) -> None:
                show(tokens)
                advance(texts, tokens)

            run_shards(
                self.plan,
                self.engine,
                sink,
                wanted,
                device=self.model.device,
                padding=self.settings.padding,
                advance=told,
            )


def prepare(
    model: LanguageModel,
    corpus: Corpus,
    *,
    sites: Sites = "resid_post",
    positions: str | Iterable[str] | None = None,
    settings: PassSettings = _DEFAULT,
    engine: Engine | None = None,
) -> Prepared:
    """Tokenize, cut into batches and shards, and say what the result is made by.

    Args and errors are those of `capture`; an ``engine`` is taken in place of the one that the
    settings name. Whoever calls it with the same arguments gets the same
    plan, so that several processes can each run some of its shards.
    """
    settings = settings.stored()
    if settings.template_variables:
        model = model.with_template_variables(settings.template_variables)
    wanted = expand_sites(sites, model.n_layers)
    where = parse_positions(DEFAULT_POSITIONS[corpus.design] if positions is None else positions)
    (engine or open_engine(settings.engine, model)).check(wanted)
    texts = read_texts(model, corpus, where, settings.overlong)
    steered = [one.identity(len(corpus)) for one in listeners(model.hf)]
    if steered and settings.engine != "transformers":
        raise DataError(
            f"The {settings.engine} engine runs a copy of the model, which steering does not "
            "reach; use engine='transformers', or call this outside the steering block."
        )
    options = dict(settings.engine_options or {})
    if any(site.kind == "pattern" for site in wanted):
        options["key_length"] = int(texts.lengths.max())
    runner = engine or open_engine(settings.engine, model, **options)
    widths = {site: runner.width(site) for site in wanted}
    row_bytes = bytes_per_row(widths, settings.dtype)
    shard_bytes = shard_size(settings.shard_bytes, row_bytes)
    mixed = len(set(texts.lengths.tolist())) == 1 or (
        model.padding.upto(int(texts.lengths.max())).right
    )
    plan = make_plan(
        texts,
        widths,
        where,
        row_bytes=row_bytes,
        max_tokens_per_batch=settings.max_tokens_per_batch,
        shard_bytes=shard_bytes,
        mix_lengths=mixed,
    )
    return Prepared(
        model=model,
        engine=runner,
        plan=plan,
        settings=settings,
        provenance=_provenance(model, corpus, plan, settings, steered),
        facts={
            "corpus": corpus.name,
            "design": corpus.design,
            "labels": list(corpus.label_set),
            "records": len(texts),
            "n_heads": model.anatomy.n_heads,
            **_spared(model, where),
            **texts.counts,
        },
        layout={
            "max_tokens_per_batch": settings.max_tokens_per_batch,
            "shard_bytes": shard_bytes,
            **({} if mixed else {"mix_lengths": False}),
        },
    )


def capture(
    model: LanguageModel,
    corpus: Corpus,
    *,
    sites: Sites = "resid_post",
    positions: str | Iterable[str] | None = None,
    out: str | Path | None = None,
    resume: bool = True,
    force: bool = False,
    advance: Advance = lambda _texts, _tokens: None,
    **options: Unpack[CaptureOptions],
) -> ActivationStore:
    """Run a corpus through a model and keep activations.

    A capture that was stopped, by whatever, goes on where it was when it is called again; a store
    that is finished is opened and nothing is run.

    Inside a steering block the steered model is read: prompts end where replies begin (a text
    without a reply is all prompt), a list of requests has one per record, and the store is known as
    made by that pack and these requests.

    Args:
        model: From `affectlens.load_model`.
        corpus: Records; those whose last message is no reply are given the generation prompt.
        sites: See `affectlens.core.places.expand_sites`.
        positions: See `affectlens.activations.positions`; several at once cost one pass. Default:
            where the design shows its emotion (``last``, ``mean:reply`` or ``mean:text``). Means
            leave attention sinks out, the first token of each row among them; the store says
            which in ``facts["means_without"]``.
        out: Folder of the store, or its URL; None keeps it in memory.
        resume: Whether to go on with an unfinished store of the same capture, or to open a finished
            one. Its batches and shards are then cut as they were.
        force: Whether to replace a store that something else made.
        advance: Told after each pass how many texts and tokens it ran.
        **options: The fields of `affectlens.activations.CaptureSettings`: ``dtype``,
            ``max_tokens_per_batch``, ``overlong``, ``padding``, ``engine``, ``engine_options``,
            ``shard_bytes``, ``template_variables``.

    Returns:
        The store, with one row per record and position (``all``: per token), in corpus order.

    Raises:
        UnknownNameError: If a site, position, option, dtype, policy or engine does not exist.
        DataError: If there is nothing to read at a position (for a mean, nothing but attention
            sinks), a text is too long, or an activation is NaN or infinite.
        MismatchError: If ``out`` holds a store of other weights, texts, sites or code.
        ArtefactError: If ``out`` cannot be written, or somebody is writing it.
    """
    settings = from_options(CaptureSettings, options, "capture")
    if out is not None and resume:
        settings = as_cut_before(settings, out)
    prepared = prepare(model, corpus, sites=sites, positions=positions, settings=settings)
    if out is None:
        memory = MemorySink(prepared.plan, settings.dtype)
        prepared.run(memory, advance=advance)
        return memory.finish(prepared.provenance, prepared.facts)
    spec, plan = prepared.spec, prepared.plan
    with opened_for_writing(out, spec, plan.table(), resume=resume, force=force) as session:
        todo = [i for i in range(len(spec.shards)) if i not in session.done]
        with ShardWriter(session.folder, spec, model.device) as writer:
            prepared.run(writer, todo, advance=advance)
        session.finish()
        return ActivationStore.open(session.folder)


def as_cut_before(settings: C, out: str | Path | Folder) -> C:
    """Settings with which batches and shards are cut as in the store that lies there, if one does.

    Raises:
        ArtefactError: If its manifest is damaged, or of another format.
    """
    layout = read_layout(out) or {}
    names = ("max_tokens_per_batch", "shard_bytes")
    return replace(settings, **{name: layout[name] for name in names if name in layout})


def _spared(model: LanguageModel, positions: Sequence[Position]) -> dict[str, str]:
    """In words: which tokens means leave out."""
    if not any(position.spares_sinks for position in positions):
        return {}
    return {"means_without": model.sinks.describe(model.tokenizer)}


def _provenance(
    model: LanguageModel,
    corpus: Corpus,
    plan: CapturePlan,
    settings: CaptureSettings,
    steered: Sequence[Mapping[str, Any]],
) -> Provenance:
    return Provenance(
        kind="activations",
        model=model.fingerprint,
        model_name=model.name,
        corpus=corpus.fingerprint,
        parameters={
            "sites": [site.hook_name for site in plan.sites],
            "positions": [position.name for position in plan.positions],
            "model_dtype": str(model.dtype).removeprefix("torch."),
            **identity(settings),
            **(
                {"sinks": model.sinks.facts()}
                if any(position.spares_sinks for position in plan.positions)
                else {}
            ),
            "template": plan.texts.template_fingerprint,
            **(
                {"template_variables": dict(model.template_variables)}
                if model.template_variables and plan.texts.template_fingerprint
                else {}
            ),
            "tokens": plan.texts.tokens_fingerprint,
            "code": f"{package_version()}/{CAPTURE_VERSION}",
            **({"steering": [dict(one) for one in steered]} if steered else {}),
        },
    )
