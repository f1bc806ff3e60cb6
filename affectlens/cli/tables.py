"""What the commands print: tables on stdout, progress on stderr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.cli.consoles import narrow_table, print_lines, stderr, stdout
from affectlens.core.artefact import read_json
from affectlens.core.jsonl import json_line

if TYPE_CHECKING:
    from affectlens.circuits.evidence import AblationCurve
    from affectlens.core.emotions import LabelMapping, LabelSet
    from affectlens.core.registry import Registry
    from affectlens.models.registry import ModelInfo
    from affectlens.pipeline.corpus_choice import CorpusChoice
    from affectlens.pipeline.engine import Stage
    from affectlens.pipeline.run_config import RunConfig
    from affectlens.pipeline.steer import SideBySide


def run_with_progress(config: RunConfig, *, until: str | None = None) -> None:
    """Run the stages, saying on stderr which are done, and print a short table at the end.

    What a user's own texts cannot give is said first.
    """
    from rich.markup import escape

    from affectlens.pipeline.run import run

    err = stderr()

    def on_notice(notice: str) -> None:
        err.print(f"[yellow]note[/]        {escape(notice)}", soft_wrap=True)

    def on_stage(stage: Stage, what: str, seconds: float) -> None:
        if what == "started":
            err.print(f"[bold]{stage.name:<11}[/] {stage.title}")
        elif what == "done":
            err.print(f"[green]{stage.name:<11}[/] done in {seconds:.1f} s")
        else:
            err.print(f"[dim]{stage.name:<11} unchanged[/]")

    folder = run(config, until=until, on_stage=on_stage, on_notice=on_notice)
    if (folder / "metrics.json").is_file() and until in (None, "report"):
        print_summary(folder)


def print_summary(folder: Path) -> None:
    """The tables of a finished run: arms, and the circuit against each of them."""
    from rich.table import Table

    from affectlens.pipeline.summary import mean_table, pair_table, share_table

    metrics = read_json(folder / "metrics.json")
    out = stdout()
    for title, made in (
        (f"{metrics['model']}: replies in which a blind judge finds the emotion", share_table),
        ("what it costs", mean_table),
        ("arms in pairs: difference (95 % interval), p", pair_table),
    ):
        head, *body = made(metrics)
        table = Table(title=title)
        for i, name in enumerate(head):
            table.add_column(name, justify="right" if i else "left")
        for row in body:
            table.add_row(*row)
        out.print(table)
    probe = metrics["probe"]
    out.print(
        f"Probe: {probe['accuracy']:.2f} on held-out scenarios at {probe['best_layer']}. "
        f"Judge: {metrics['judge']['accuracy']:.2f} on unseen groups; dealt at random its verdicts "
        f"would be right in {max(metrics['judge']['chance'].values()):.2f}."
    )
    _print_evidence(folder)
    out.print(f"Report: {folder / 'report.html'}", soft_wrap=True)


def _print_evidence(folder: Path) -> None:
    """What may be said of the circuit, or that it is untested."""
    from affectlens.circuits.evidence.parts import VERDICT
    from affectlens.circuits.verdict import UNTESTED, Evidence
    from affectlens.cli.evidence_tables import print_verdict
    from affectlens.pipeline.stages.evidence import FOLDER

    file = folder / FOLDER / VERDICT
    found = Evidence.load(file) if file.is_file() else None
    if found is not None and found.provenance.inputs:
        print_verdict(found)
    else:
        how = f"affectlens circuit evidence --out {folder}"
        stdout().print(f"Circuit: {UNTESTED}; test it with `{how}`.", soft_wrap=True)


def print_steered(replies: SideBySide) -> None:
    """A reply without and one with steering, one above the other."""
    from rich.panel import Panel
    from rich.text import Text

    out = stdout()
    out.print(Panel(Text(replies.unsteered), title="unsteered", title_align="left"))
    out.print(
        Panel(
            Text(replies.steered),
            title=Text(replies.spec),
            title_align="left",
            subtitle=Text(replies.pack),
            subtitle_align="right",
        )
    )


def print_ablation(curve: AblationCurve, saved: Path, *, as_json: bool) -> None:
    """Falls by count of units, then the verdict of every emotion."""
    from rich.table import Table

    out = stdout()
    if as_json:
        print_lines(curve.table_rows())
        return
    named = str(curve.provenance.parameters.get("task", "")).replace("_", "-")
    names = ("emotion", "units", "fall", "random units", "difference (95 %)", "p", "others")
    table = Table(title=f"Fall of the {named} margin, nats per token")
    for i, name in enumerate(names):
        table.add_column(name, justify="right" if i else "left")
    for one in curve.effects():
        found = one.difference
        table.add_row(
            one.emotion,
            str(one.count),
            f"{one.change:.3f}",
            f"{one.random:.3f}",
            f"{found.mean:.3f} ({found.low:.3f}-{found.high:.3f})",
            f"{one.p:.2g}",
            f"{one.others:.3f}",
        )
    out.print(table)
    for emotion, words in curve.findings().items():
        out.print(f"{emotion}: " + "; ".join(f"{k}: {v}" for k, v in words.items()))
    out.print(f"Saved: {saved}", soft_wrap=True)


def print_rows(rows: Sequence[Mapping[str, Any]], saved: Path, *, as_json: bool) -> None:
    """Rows as JSON lines, or as a table of the first forty and where all of them are."""
    from rich.table import Table

    out = stdout()
    if as_json:
        print_lines(rows)
        return
    shown = rows[:40]
    table = Table(*(rows[0] if rows else ()))
    for row in shown:
        cells = (f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values())
        table.add_row(*cells)
    out.print(table)
    if len(rows) > len(shown):
        out.print(f"{len(rows) - len(shown)} more rows: --json prints all of them.")
    out.print(f"Saved: {saved}", soft_wrap=True)


def print_entries(tables: Mapping[str, Registry[Any]]) -> None:
    """What can be added by name, of each kind."""
    from rich.table import Table
    from rich.text import Text

    table = Table("kind", "name", "what")
    for kind, entries in tables.items():
        for entry in entries.values():
            # As text: shapes in brackets are no markup.
            table.add_row(kind, Text(entry.name), Text(entry.help))
        table.add_section()
    stdout().print(table)


def print_label_set(labels: LabelSet) -> None:
    """The labels of a set, with their kin and coordinates."""
    from rich.table import Table

    columns = ("label", "under", "across", "mild", "strong", "V", "A", "D", "rated as", "by")
    table = Table(*columns, title=f"{labels.help}; {labels.source}")
    kin = (labels.broader, labels.opposite, labels.milder, labels.stronger)
    for label in labels.labels:
        found = labels.coordinates(label)
        told = [f"{value:.2f}" for value in found.vad] if found else ["", "", ""]
        rated = (found.term, found.source) if found else ("", "")
        table.add_row(label, *(one.get(label, "") for one in kin), *told, *rated)
    out = stdout()
    out.print(table)
    for name, (first, second) in labels.composed_of.items():
        out.print(f"{name} = {first} + {second}")


def print_label_mapping(mapping: LabelMapping) -> None:
    """What the labels of a set are in another, and what is lost."""
    from rich.table import Table

    from affectlens.core.emotions import label_set

    table = Table(mapping.source, mapping.target, title=mapping.why)
    for label in label_set(mapping.source).labels:
        table.add_row(label, mapping(label) or "")
    out = stdout()
    out.print(table)
    out.print(f"{mapping.losses()}.", soft_wrap=True)


def print_models(models: Sequence[ModelInfo]) -> None:
    """Table of built-in models."""
    table = narrow_table("name")
    for head in ("what", "on disk", "licence", "description"):
        table.add_column(head)
    for info in models:
        size = info.kept_bytes if info.cached else info.download_bytes
        state = "cached" if info.cached else "to download"
        table.add_row(
            info.name, info.kind, f"{size / 1e6:.0f} MB {state}", info.licence, info.description
        )
    out = stdout()
    out.print(table)
    out.print("Hub ids (owner/name), local folders and GGUF files work wherever a name does.")


def print_facts(facts: Mapping[str, Any]) -> None:
    """One fact a line."""
    from rich.text import Text

    out = stdout()
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        out.print(Text(f"{name:<{width}}  {value}"), soft_wrap=True)


def print_corpora() -> None:
    """Table of corpora."""
    from rich.table import Table

    from affectlens.datasets import list_corpora

    table = Table("name", "design", "records", "licence", "what")
    for info in list_corpora():
        table.add_row(info.name, info.design, f"{info.rows:,}", info.licence, info.help)
    stdout().print(table)


def print_records(choice: CorpusChoice, n: int) -> None:
    """Some records as JSON lines, so that they can be piped."""
    from affectlens.datasets import show

    for row in show(choice.load(), n):
        # Not through rich: a line of JSON must stay one line.
        stdout().print(json_line(row), soft_wrap=True, markup=False)


def print_leakage(choice: CorpusChoice) -> bool:
    """Print what was read and what the leakage check found; True if that is nothing."""
    from affectlens.datasets import check_leakage

    corpus = choice.load()
    report, name = check_leakage(corpus), choice.name
    out = stdout()
    not_read = ", ".join(corpus.provenance.get("not_read", ()))
    if not_read:
        out.print(f"Columns that are not read: {not_read}", soft_wrap=True, markup=False)
    for finding in report.findings:
        out.print(str(finding), soft_wrap=True, markup=False)
    out.print(f"{name}: {len(report.findings)} findings" if report.findings else f"{name}: clean")
    return not report.findings
