"""``affectlens run``, and its stages as commands of their own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affectlens.cli.generating_options import Backend, Url, VllmPython
from affectlens.cli.options import Seed
from affectlens.cli.program import (
    DEFAULT_MODEL,
    DEFAULT_RUN,
    FIRST,
    STAGE,
    Columns,
    CorpusPath,
    Device,
    DeviceMap,
    Dtype,
    Labels,
    Quantize,
    Several,
    TemplateVar,
    example,
    sentences,
)

if TYPE_CHECKING:
    from affectlens.pipeline.own import OwnCorpus

Out = Annotated[Path, typer.Option("--out", help="Run folder; work already done there is kept.")]
Model = Annotated[str, typer.Option("--model", help="Built-in name, hub id, folder or GGUF file.")]
Events = Annotated[
    int | None,
    typer.Option("--events", min=1, help="Use at most so many scenarios to tune and to test."),
]
Size = Annotated[str, typer.Option("--size", help="How much is done; see `affectlens list sizes`.")]
Style = Annotated[
    str, typer.Option("--style", help="Named or only shown; see `affectlens list styles`.")
]
Force = Annotated[bool, typer.Option("--force", help="Redo stages even if nothing changed.")]

Corpus = Annotated[
    str | None,
    typer.Option("--corpus", help="Your own file (JSONL, JSON, CSV) or a corpus by name."),
]
Neutral = Annotated[
    str | None, typer.Option("--neutral", help="With --corpus: the label that stands for no tone.")
]
Prompts = Annotated[
    str | None,
    typer.Option("--prompts", help="With --corpus: a file of prompts that the arms answer."),
]
Openers = Annotated[
    str | None,
    typer.Option("--openers", help="With --corpus: a file of first sentences of each label."),
]
Judge = Annotated[
    str | None,
    typer.Option(
        "--judge", help="With --corpus: http://HOST:PORT[#MODEL], or a text classifier's folder."
    ),
]
Ask = Annotated[
    str | None,
    typer.Option("--ask", help="With --corpus: system prompt that asks for a {label}."),
]
PerLabel = Annotated[
    str | None,
    typer.Option("--per-label", help="With --corpus: most texts of a label (150), or all."),
]

GENERATING = ("run", "evaluate", "report")
"""Commands that the choice of a backend makes a difference to."""
BACKEND_OPTIONS = ("backend", "url", "vllm_python")
"""What the others do not take."""


@dataclass(frozen=True)
class OwnOptions:
    """What is asked about texts of one's own."""

    corpus: str | None
    path: Path | None
    column: list[str] | None
    labels: str | None
    several: str | None
    neutral: str | None
    prompts: str | None
    openers: str | None
    judge: str | None
    ask: str | None
    per_label: str | None

    def asked(self) -> OwnCorpus | None:
        """As a run takes it; None without ``--corpus``.

        Raises:
            DataError: If an option needs a corpus, or makes no sense.
        """
        from affectlens.core import DataError
        from affectlens.pipeline.corpus_choice import CorpusChoice
        from affectlens.pipeline.own import OwnCorpus

        given = {name for name, value in asdict(self).items() if value is not None}
        if self.corpus is None or self.corpus == "authored":
            if others := sorted(given - {"corpus"}):
                named = ", ".join(f"--{name.replace('_', '-')}" for name in others)
                raise DataError(f"{named}: only with --corpus and texts of your own.")
            return None
        count = self.per_label
        if count is not None and count != "all" and not count.isdigit():
            raise DataError(f"--per-label takes a number or all, not {count!r}.")
        plain = OwnCorpus(
            CorpusChoice(self.corpus, self.column, self.path, self.labels, self.several),
            neutral=self.neutral,
            prompts=self.prompts,
            openers=self.openers,
            judge=self.judge,
        )
        if self.ask is not None:
            plain = replace(plain, ask=self.ask)
        if count is not None:
            plain = replace(plain, per_label=None if count == "all" else int(count))
        return plain


def add_run_command(app: typer.Typer) -> None:
    """Add ``run``, all stages in one go."""
    about = "All stages: from text to a steered model and a report."
    shown = (
        "affectlens run --model smollm2-135m-instruct --out runs/mine",
        "affectlens run --corpus mine.csv --column text=body --neutral none --out runs/own",
    )
    _add(app, "run", None, about, FIRST, shown)


def add_stage_commands(app: typer.Typer, groups: Mapping[str, typer.Typer]) -> None:
    """Add a command for each stage, which does what it needs first.

    Args:
        app: Where to.
        groups: Stages that have commands of their own below them; alone, they do the stage.
    """
    from affectlens.pipeline.line import STAGES

    for row in STAGES.values():
        shown = (f"affectlens {row.name} --out runs/mine",)
        group = groups.get(row.name)
        _add(app, row.name, row.name, f"{row.help}.", STAGE, shown, group)


def _add(
    app: typer.Typer,
    name: str,
    until: str | None,
    text: str,
    panel: str,
    shown: tuple[str, ...],
    group: typer.Typer | None = None,
) -> None:
    def command(
        context: typer.Context,
        model: Model = DEFAULT_MODEL,
        out: Out = DEFAULT_RUN,
        device: Device = None,
        device_map: DeviceMap = None,
        dtype: Dtype = None,
        quantize: Quantize = None,
        events: Events = None,
        size: Size = "full",
        style: Style = "explicit",
        seed: Seed = 0,
        template_var: TemplateVar = None,
        backend: Backend = "transformers",
        url: Url = None,
        vllm_python: VllmPython = None,
        corpus: Corpus = None,
        path: CorpusPath = None,
        column: Columns = None,
        labels: Labels = None,
        several: Several = None,
        neutral: Neutral = None,
        prompts: Prompts = None,
        openers: Openers = None,
        judge: Judge = None,
        ask: Ask = None,
        per_label: PerLabel = None,
        force: Force = False,
    ) -> None:
        if context.invoked_subcommand is None:
            own = OwnOptions(corpus, path, column, labels, several, neutral, prompts, openers,
                             judge, ask, per_label)  # fmt: skip
            _run(until, own, model=model, out=out, device=device, device_map=device_map,
                 dtype=dtype, quantize=quantize, events=events, size=size, style=style, seed=seed,
                 template_var=template_var, backend=backend, url=url, vllm_python=vllm_python,
                 force=force)  # fmt: skip

    if name not in GENERATING:
        _leave_out(command, BACKEND_OPTIONS)
    if group is not None:
        group.callback(invoke_without_command=True, help=text, epilog=example(*shown))(command)
        app.add_typer(group, name=name, rich_help_panel=panel)
        return
    add = app.command(name, help=text, rich_help_panel=panel, epilog=example(*shown))
    add(command)


def _leave_out(command: Callable[..., None], names: Collection[str]) -> None:
    """Take options from a command, which have their defaults then: typer reads its signature."""
    signature = inspect.signature(command, eval_str=True)  # as strings they would lose their help
    kept = [one for name, one in signature.parameters.items() if name not in names]
    vars(command)["__signature__"] = signature.replace(parameters=kept)


def _run(
    until: str | None, own: OwnOptions, template_var: list[str] | None, **options: Any
) -> None:
    with sentences():
        from affectlens.cli.tables import run_with_progress
        from affectlens.models.chat.variables import parse_variables
        from affectlens.pipeline import RunConfig

        options["own"] = own.asked()
        options["template_variables"] = parse_variables(template_var or ())
        run_with_progress(RunConfig.checked(**options), until=until)
