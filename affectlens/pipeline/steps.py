"""The stages of a run, each a function from the files before it to its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import EMOTIONS, TONES, ArtefactError, DataError, UnknownNameError
from affectlens.core.artefact import write_json
from affectlens.core.jsonl import read_jsonl, write_jsonl
from affectlens.core.progress import progress

if TYPE_CHECKING:
    from affectlens.circuits import Budget
    from affectlens.datasets import Corpus, Record
    from affectlens.pipeline.context import RunContext

POSITION = "mean:reply"
MODES = ("residual", "circuit")

STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "residual": (0.6, 0.8, 1.0, 1.2, 1.4),
    "circuit": (0.6, 0.8, 1.0, 1.2, 1.4),
}
"""Tried on the tuning scenarios, in units of the refined vectors."""

RANDOM = "pack_random.safetensors"
"""The pack of the arm ``random``, a file because servers read files."""

EXAMPLE_EVENTS = 4
TUNE_EVENTS = 16


def steered_layers(n_layers: int) -> tuple[int, ...]:
    """Blocks at whose output the residual mode adds: every other one of the middle.

    From a quarter to almost two thirds of the depth; on the default model 8, 10, … 18.
    """
    first, last = round(n_layers * 0.27), max(round(n_layers * 0.63), round(n_layers * 0.27) + 1)
    return tuple(range(first, last, 2))


def budget(n_layers: int, n_heads: int) -> Budget:
    """As many neurons as published (14 per layer), and a quarter of all heads.

    The published 6 heads per layer are a quarter of that model's 24; here they would be most of 9.
    """
    from affectlens.circuits import Budget

    neurons, heads = 14 * n_layers, max(n_layers, round(n_layers * n_heads / 4))
    total = neurons + heads
    return Budget(total=total, neuron_share=neurons / total, floor_heads=1)


def express(run: RunContext) -> Sequence[str]:
    """Let the model express each emotion, and pool that with the authored texts."""
    from affectlens.pipeline.expression import EVENTS, expression_corpus

    with progress("continuing openers", EVENTS * len(EMOTIONS)) as advance:
        corpus = expression_corpus(run.model, advance=advance)
    save_corpus(corpus, run.folder / "expression.jsonl")
    return ["expression.jsonl"]


def activations(run: RunContext) -> Sequence[str]:
    """Keep activations: of matched replies for the probes, of expression for the directions."""
    from affectlens.activations import capture
    from affectlens.activations.lock import LOCK
    from affectlens.datasets import load

    corpora = {
        "replies": (load("replies"), "resid_pre@0,resid_post"),
        "expression": (expressed(run), "resid_mid,resid_post"),
    }
    files: list[str] = []
    for name, (corpus, sites) in corpora.items():
        out = run.folder / "activations" / name
        if run.model.anatomy.parallel:
            sites = sites.replace("resid_mid,", "")
        # Goes on where a stopped run was; what other parameters made is replaced.
        capture(
            run.model,
            corpus,
            sites=sites,
            positions=POSITION,
            out=out,
            resume=not run.config.force,
            force=True,
        )
        written = [f for f in sorted(out.rglob("*")) if f.is_file() and f.name != LOCK]
        files += [str(f.relative_to(run.folder)) for f in written]
    return files


def probe(run: RunContext) -> Sequence[str]:
    """A probe per layer on the matched replies, tested on held-out scenarios."""
    from affectlens.activations import ActivationStore
    from affectlens.probes import sweep

    store = ActivationStore.open(run.folder / "activations" / "replies")
    sweep(store, classes=TONES, seed=run.config.seed).save(run.folder / "probes.safetensors")
    return ["probes.safetensors"]


def directions(run: RunContext) -> Sequence[str]:
    """Group-centred directions of every block, then those of the steered blocks refined."""
    from affectlens.activations import ActivationStore
    from affectlens.probes import directions as find
    from affectlens.steering.refine import RESIDUAL, refine_directions

    store = ActivationStore.open(run.folder / "activations" / "expression")
    found = find(store, seed=run.config.seed)
    found.save(run.folder / "directions.safetensors")
    with progress("refining directions", RESIDUAL.steps) as advance:
        refined = refine_directions(
            run.model,
            found,
            refine_corpora(run),
            layers=steered_layers(run.model.n_layers),
            advance=advance,
        )
    refined.save(run.folder / "refined.safetensors")
    return ["directions.safetensors", "refined.safetensors"]


def circuit(run: RunContext) -> Sequence[str]:
    """The neurons and heads that write each emotion, then what is added to them refined."""
    from affectlens.circuits import find_circuit
    from affectlens.probes import Directions
    from affectlens.steering.refine import CIRCUIT, refine_circuit

    found = find_circuit(
        run.model,
        expressed(run),
        Directions.load(run.folder / "directions.safetensors"),
        budget=budget(run.model.n_layers, run.model.anatomy.n_heads),
        position=POSITION,
        score="contrast",
        split=None,
    )
    found.save(run.folder / "circuit.safetensors")
    with progress("refining the circuit", CIRCUIT.steps) as advance:
        refined = refine_circuit(run.model, found, refine_corpora(run), advance=advance)
    refined.save(run.folder / "circuit_refined.safetensors")
    return ["circuit.safetensors", "circuit_refined.safetensors"]


def pack(run: RunContext) -> Sequence[str]:
    """Fold refined directions and circuit into one steering pack, with a probe to read by."""
    from affectlens.circuits import Circuit
    from affectlens.probes import Directions, Sweep
    from affectlens.steering import SteeringPack

    refined = Directions.load(run.folder / "refined.safetensors")
    layers = [site.layer for site in refined.sites]
    folded = SteeringPack.merge(
        SteeringPack.from_directions(refined, run.model, layers=layers),
        SteeringPack.from_circuit(
            Circuit.load(run.folder / "circuit_refined.safetensors"), run.model
        ),
    )
    folded = folded.with_readout(Sweep.load(run.folder / "probes.safetensors"))
    folded.save(run.folder / "pack_untuned.safetensors")
    return ["pack_untuned.safetensors"]


def tune(run: RunContext) -> Sequence[str]:
    """Choose a strength per mode and emotion on the tuning scenarios."""
    from affectlens.evaluation import choose_strengths
    from affectlens.pipeline.tuning import tuning_points
    from affectlens.steering import SteeringPack

    untuned = SteeringPack.load(run.folder / "pack_untuned.safetensors")
    points = tuning_points(run, untuned, tuning_events(run), STRENGTHS)
    chosen = choose_strengths(points)
    tuned = untuned
    for mode, strengths in chosen.items():
        tuned = tuned.with_recommended(mode, strengths)
    write_json(
        run.folder / "tuning.json", {"points": [asdict(p) for p in points], "chosen": chosen}
    )
    tuned.save(run.folder / "pack.safetensors")
    return ["tuning.json", "pack.safetensors"]


def evaluate(run: RunContext) -> Sequence[str]:
    """Generate every arm on the test scenarios; arms that a stopped run has finished are kept."""
    from affectlens.evaluation import ARMS, arm_requests, generate_replies, random_pack
    from affectlens.pipeline.arms import Arm
    from affectlens.pipeline.backend import backend
    from affectlens.steering import SteeringPack

    tuned = SteeringPack.load(run.folder / "pack.safetensors")
    control = random_pack(tuned, "residual", run.config.seed)
    control.save(run.folder / RANDOM)
    packs = {"residual": tuned, "circuit": tuned, "random": control}
    events = run.events("test")
    arms = [Arm(name, arm_requests(name, events), packs.get(name)) for name in ARMS]
    left = [arm for arm in arms if run.config.force or not arm.done(run)]
    files = {run.folder / "pack.safetensors": tuned, run.folder / RANDOM: control}
    with backend(run, files) if left else nullcontext() as generating:
        for arm in left:
            with progress(f"arm {arm.name}", len(arm.requests)) as advance:
                replies = generate_replies(
                    run.model,
                    arm.name,
                    arm.requests,
                    run.settings,
                    pack=arm.pack,
                    backend=generating,
                    advance=advance,
                )
            arm.save(run, replies)
    return [RANDOM, *(arm.file for arm in arms)]


def judge(run: RunContext) -> Sequence[str]:
    """How far the judges can be trusted, on groups that they have not seen."""
    from affectlens.datasets import load
    from affectlens.evaluation.judges import agreement, judge_report, refusal_report

    corpora = {name: load(name).filter(split="test") for name in ("replies", "tones")}
    texts = [record.text for corpus in corpora.values() for record in corpus]
    pieces = sorted({word for text in texts for word in text.split()})
    write_json(
        run.folder / "judge.json",
        {
            "encoder": judge_report(run.judge, corpora),
            "lexicon": judge_report(run.lexicon, corpora),
            "garbled": refusal_report(run.judge, texts, n=400, seed=run.config.seed, pieces=pieces),
            "agreement": agreement([run.judge, run.lexicon], texts),
        },
    )
    return ["judge.json"]


def tuning_events(run: RunContext) -> list[Record]:
    """One event per tuning scenario, the valences in turn."""
    from affectlens.datasets import Corpus
    from affectlens.pipeline.expression import spread

    events = run.events("tune")
    return spread(Corpus("tune", "texts", tuple(events)), min(TUNE_EVENTS, len(events)))


def refine_corpora(run: RunContext) -> list[Corpus]:
    """What vectors are refined on: half the model's own replies, a quarter each of the others."""
    from affectlens.datasets import Corpus, load

    expression = expressed(run)
    own, tones = (
        Corpus(name, "replies", tuple(r for r in expression if r.group.startswith(f"{name}:")))
        for name in ("own", "tones")
    )
    matched = load("replies").filter(role="direction", emotion=EMOTIONS)
    return [own, tones, own, matched]


def expressed(run: RunContext) -> Corpus:
    """The corpus of the stage ``express``."""
    return load_corpus(run.folder / "expression.jsonl")


def save_corpus(corpus: Corpus, path: Path) -> None:
    """Write the records of a corpus as JSON lines."""
    rows = [
        {
            "id": r.id,
            "messages": list(r.chat),
            "emotion": r.emotion,
            "valence": r.valence,
            "group": r.group,
            "theme": r.theme,
            "split": r.split,
            "meta": dict(r.meta),
        }
        for r in corpus
    ]
    header = {"name": corpus.name, "design": corpus.design}
    write_jsonl(path, (header, *rows))


def load_corpus(path: Path) -> Corpus:
    """Inverse of `save_corpus`.

    Raises:
        ArtefactError: If the file is missing or damaged.
    """
    from affectlens.datasets import Corpus, Message, Record

    try:
        header, *rows = [dict(row) for row in read_jsonl(path)]
        records: list[Record] = []
        for row in rows:
            fields: dict[str, Any] = dict(row)
            fields["messages"] = tuple(Message(**m) for m in row["messages"])
            records.append(Record(**fields))
        return Corpus(str(header["name"]), str(header["design"]), tuple(records))
    except (ValueError, KeyError, TypeError, DataError, UnknownNameError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}); delete it and run again.") from error
