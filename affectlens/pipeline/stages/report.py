"""The stage ``report``: metrics.json for programs, report.html for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from affectlens import reports
from affectlens.circuits.evidence.parts import VERDICT
from affectlens.core import ArtefactError, Site
from affectlens.core.artefact import package_version, read_json, write_json
from affectlens.evaluation import StrengthPoint, compare, compare_draws, score_replies, summarise
from affectlens.evaluation.arms.random_units_refined import ALL_DRAWS, RANDOM_UNITS_REFINED
from affectlens.models.registry import weights_note
from affectlens.pipeline.arm_files import file_of, load_replies
from affectlens.pipeline.corpus_files import expressed
from affectlens.pipeline.engine import peak_rss_mb, receipt_file
from affectlens.pipeline.expression import openers_of
from affectlens.pipeline.pack_cards import told_of
from affectlens.pipeline.pack_files import tuned_file
from affectlens.pipeline.report_examples import examples
from affectlens.pipeline.settings import ReportSettings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.circuit import CIRCUIT
from affectlens.pipeline.stages.directions import DIRECTIONS
from affectlens.pipeline.stages.evidence import FOLDER
from affectlens.pipeline.stages.judge import JUDGED
from affectlens.pipeline.stages.probe import PROBES
from affectlens.pipeline.stages.tune import TUNING
from affectlens.plotting import (
    CircuitSummary,
    DirectionsSummary,
    EvidenceSummary,
    SweepSummary,
)

if TYPE_CHECKING:
    from affectlens.circuits import Circuit
    from affectlens.models.generation.decoding import GenerationSettings

METRICS = "metrics.json"
DATA = "report.json"
PAGE = "report.html"


def report(run: StageRun) -> Sequence[str]:
    """Measure and compare the arms; write ``metrics.json``, ``report.json``, ``report.html``."""
    from affectlens.circuits import Circuit
    from affectlens.circuits.evidence.parts import load_parts
    from affectlens.circuits.verdict import Evidence
    from affectlens.geometry import Directions, emotion_map
    from affectlens.probes import Sweep

    settings: ReportSettings = run.settings
    sweep = Sweep.load(run.input("probe", PROBES))
    directions = Directions.load(run.input("directions", DIRECTIONS))
    circuit = Circuit.load(run.input("circuit", CIRCUIT))
    tested = run.input("evidence", FOLDER)
    evidence = Evidence.load(tested / VERDICT)
    judged = read_json(run.input("judge", JUDGED))
    tuning = read_json(run.input("tune", TUNING))
    replies = {arm: load_replies(run.input("evaluate", file_of(arm))) for arm in settings.arms}
    openers = openers_of(expressed(run))
    scores = {
        arm: score_replies(
            rows,
            replies["unsteered"],
            judge=run.judge,
            lexicon=run.lexicon,
            embed=run.embed,
            emotions=settings.emotions,
            openers=openers,
        )
        for arm, rows in replies.items()
    }
    arms = {arm: summarise(found, seed=settings.seed) for arm, found in scores.items()}
    pairs = compare(scores, settings.main, seed=settings.seed)
    for arm, control in settings.pairs:
        pairs += compare(scores, arm, controls=[control], seed=settings.seed)
    draws = [arm.name for arm in RANDOM_UNITS_REFINED if arm.name in scores]
    if len(draws) > 1:
        pairs += compare_draws(scores, settings.main, draws, ALL_DRAWS, seed=settings.seed)
    receipts = {name: read_json(run.input(name, receipt_file(name))) for name in run.row.needs}
    seconds = {name: float(receipt["seconds"]) for name, receipt in receipts.items()}
    peak = max([peak_rss_mb(), *(float(r["peak_rss_mb"]) for r in receipts.values())])
    halves = directions.split_half
    if halves is None:
        raise ArtefactError("The directions have no split-half cosines; make them again.")
    weights = weights_note(settings.model)
    best = Site(sweep.best.layer, "resid_post")
    metrics = {
        "model": directions.provenance.model_name,
        "model_fingerprint": directions.provenance.model,
        "weights": weights,
        "corpus": settings.corpus,
        "labels": list(settings.emotions),
        **({"notices": list(settings.notices)} if settings.notices else {}),
        "backend": settings.backend,
        "decoding": asdict(settings.generation),
        "package_version": package_version(),
        "seconds": seconds,
        "peak_rss_mb": round(peak, 1),
        "probe": sweep.to_dict(),
        "directions": {
            "split_half_cosine": float(halves.mean()),
            "split_half_by_emotion": {
                e: float(halves[:, i].mean()) for i, e in enumerate(directions.emotions)
            },
        },
        "circuit": {**circuit_numbers(circuit), "evidence": evidence.said()},
        "judge": {
            **judge_numbers(judged),
            "false_hits": {
                "mean": arms["unsteered"].accuracy,
                "by_emotion": arms["unsteered"].per_emotion,
            },
        },
        "strengths": tuning["chosen"],
        "strengths_at_end": tuning["at_end"],
        "arms": {arm: asdict(m) for arm, m in arms.items()},
        "comparisons": [asdict(pair) for pair in pairs],
    }
    write_json(run.folder / METRICS, reports.plain(metrics))
    data = reports.ReportData(
        header=reports.Header(
            model=str(metrics["model"]),
            model_fingerprint=directions.provenance.model,
            corpus=settings.corpus_title,
            notices=settings.notices,
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            package_version=package_version(),
            seconds=seconds,
            peak_memory=int(peak * 2**20),
            facts={
                "seed": str(settings.seed),
                **({"weights": weights} if weights else {}),
                "test events": str(len(replies["unsteered"])),
                "arms generated by": settings.backend,
                "decoding": decoding(settings.generation),
            },
        ),
        probes=SweepSummary.of(sweep),
        directions=DirectionsSummary.of(directions, best),
        emotion_map=emotion_map(directions, best) if len(directions.emotions) > 2 else None,
        circuit=CircuitSummary.of(circuit, settings.top_neurons),
        evidence=EvidenceSummary.of(evidence, parts)
        if (parts := load_parts(tested, evidence))
        else None,
        tuning=reports.Tuning([StrengthPoint(**p) for p in tuning["points"]], tuning["chosen"]),
        arms=arms,
        comparisons=pairs,
        judges=[judged[name] for name in ("judge", "second")],
        examples=examples(replies, run.judge, settings.example_arms, settings.example_events),
    )
    reports.save(data, run.folder / DATA)
    reports.write(data, run.folder / PAGE)
    return [METRICS, DATA, PAGE, _card(run)]


def _card(run: StageRun) -> str:
    """Write the card of the pack that was chosen, with its scores, and return its name."""
    from affectlens.steering import SteeringPack
    from affectlens.steering.packs.card import PackCard, card_file

    file = run.input("tune", tuned_file("pack"))
    card = card_file(file)
    card.unlink(missing_ok=True)  # of a run before
    PackCard.of(SteeringPack.load(file), file, told_of(file)).write(card)
    return card.name


def decoding(generation: GenerationSettings) -> str:
    """How all arms were generated, in words."""
    chosen = "greedy" if generation.temperature == 0 else f"temperature {generation.temperature:g}"
    return (
        f"{chosen}, at most {generation.max_new_tokens} tokens, repetition penalty "
        f"{generation.repetition_penalty:g} (Hugging Face's default is 1.0)"
    )


def circuit_numbers(circuit: Circuit) -> dict[str, Any]:
    """Sizes and overlaps for metrics.json."""
    n = len(circuit.emotions)
    return {
        "n_neurons": sum(len(circuit.neurons[e]) for e in circuit.emotions) // n,
        "n_heads": sum(len(circuit.heads[e]) for e in circuit.emotions) // n,
        "overlap": {kind: circuit.overlap(kind).summary() for kind in ("neurons", "heads")},
    }


def judge_numbers(judged: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy over the unseen groups of both corpora together, and of each alone."""
    corpora = judged["judge"]["corpora"]
    n = sum(c["n"] for c in corpora.values())
    return {
        "accuracy": sum(c["accuracy"] * c["n"] for c in corpora.values()) / n,
        "by_corpus": {name: c["accuracy"] for name, c in corpora.items()},
        "garbled_given_an_emotion": {
            kinds: judged["garbled"][kinds]["emotion_found"] for kinds in ("trained", "held_out")
        },
        "chance": {name: c["chance"] for name, c in corpora.items()},
        "lexicon_accuracy": {
            name: c["accuracy"] for name, c in judged["second"]["corpora"].items()
        },
    }
