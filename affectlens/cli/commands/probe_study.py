"""``affectlens probe study``: persistence in a reply, system prompts, dialogues turn by turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affectlens.cli.options import AsJson, Seed, whole_numbers
from affectlens.cli.program import (
    DEFAULT_MODEL,
    Columns,
    CorpusPath,
    Device,
    Dtype,
    Labels,
    Several,
    example,
    sentences,
)

if TYPE_CHECKING:
    from affectlens.sweeps.studies import StudyResult

Model = Annotated[str, typer.Option("--model", help="Name, hub id, folder or GGUF file.")]
Out = Annotated[Path, typer.Option("--out", help="Folder; what is finished there is kept.")]
Tokens = Annotated[int, typer.Option("--tokens", min=1, help="Longest reply that is generated.")]
Draws = Annotated[int, typer.Option("--draws", min=2, help="Bootstrap draws.")]
Folds = Annotated[int, typer.Option("--folds", min=2, help="Folds of groups.")]

study_app = typer.Typer(
    help="What becomes of an emotion: in replies, under prompts, in dialogues.",
    no_args_is_help=True,
    epilog=example("affectlens probe study persistence --corpus replies --out studies/replies"),
)


def add_study_commands(app: typer.Typer) -> None:
    """Add ``study``."""
    app.add_typer(study_app, name="study")


@study_app.command(
    "persistence",
    epilog=example(
        "affectlens probe study persistence --corpus replies --target emotion --target valence "
        "--out studies/persistence",
        "affectlens probe study persistence --corpus tones --tokens 64 --out studies/answers",
    ),
)
def persistence(
    corpus: Annotated[
        str, typer.Option("--corpus", help="Chats with replies, or texts that the model answers.")
    ],
    out: Out,
    model: Model = DEFAULT_MODEL,
    sites: Annotated[
        str | None, typer.Option("--sites", help="Default: two thirds of the way up.")
    ] = None,
    offsets: Annotated[
        str | None, typer.Option("--offsets", help="Tokens of the reply; default: 0,1,2,4,8,….")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="emotion, valence, or a column. Repeatable."),
    ] = None,
    group: Annotated[
        str, typer.Option("--group", help="What is never both fitted on and scored by: a column.")
    ] = "scenario",
    tokens: Tokens = 64,
    folds: Folds = 5,
    draws: Draws = 2000,
    permutations: Annotated[
        int, typer.Option("--permutations", min=1, help="Of labels, between texts.")
    ] = 99,
    seed: Seed = 0,
    column: Columns = None,
    path: CorpusPath = None,
    labels: Labels = None,
    several: Several = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """How long an emotion stays readable while a reply is written, token by token."""
    with sentences():
        from affectlens.pipeline.corpus_choice import CorpusChoice
        from affectlens.sweeps import studies
        from affectlens.sweeps.request import Fitting

        request = studies.PersistenceRequest(
            model=model,
            corpus=CorpusChoice.among(corpus, [corpus], column, path, labels, several),
            out=out,
            sites=sites,
            offsets=() if offsets is None else whole_numbers("--offsets", offsets),
            targets=tuple(target or ("emotion",)),
            group=group,
            answering=studies.Answering(tokens=tokens, seed=seed),
            fitting=Fitting(folds=folds, draws=draws, permutations=permutations, seed=seed),
            device=device,
            dtype=dtype,
        )
        _done(lambda watch: studies.persistence(request, watch), out, as_json)


@study_app.command(
    "malleability",
    epilog=example(
        "affectlens probe study malleability --corpus tones --ruler replies "
        "--out studies/malleability",
    ),
)
def malleability(
    corpus: Annotated[
        str, typer.Option("--corpus", help="Texts with labels, which the model answers.")
    ],
    out: Out,
    ruler: Annotated[
        str, typer.Option("--ruler", help="Replies with labels, which the probe is fitted on.")
    ] = "replies",
    model: Model = DEFAULT_MODEL,
    site: Annotated[
        str | None, typer.Option("--site", help="Default: the best, cross-validated.")
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option("--system", help="NAME=TEXT; default: emotional, calm, unrelated."),
    ] = None,
    texts: Annotated[int, typer.Option("--texts", min=2, help="At most so many.")] = 70,
    tokens: Tokens = 64,
    folds: Folds = 5,
    draws: Draws = 2000,
    seed: Seed = 0,
    column: Columns = None,
    path: CorpusPath = None,
    labels: Labels = None,
    several: Several = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """How far a system prompt moves the emotion that is read in replies."""
    with sentences():
        from affectlens.pipeline.corpus_choice import CorpusChoice
        from affectlens.sweeps import studies
        from affectlens.sweeps.request import Fitting

        both = list(dict.fromkeys([corpus, ruler]))
        request = studies.MalleabilityRequest(
            model=model,
            corpus=CorpusChoice.among(corpus, both, column, path, labels, several),
            ruler=CorpusChoice.among(ruler, both, column, path, labels, several),
            out=out,
            site=site,
            texts=texts,
            answering=studies.Answering(tokens=tokens, seed=seed),
            fitting=Fitting(folds=folds, draws=draws, seed=seed),
            device=device,
            dtype=dtype,
            **({} if system is None else {"systems": _systems(system)}),
        )
        _done(lambda watch: studies.malleability(request, watch), out, as_json)


@study_app.command(
    "dialogue",
    epilog=example(
        "affectlens probe study dialogue --probe runs/mine/probe.safetensors --chats chats.jsonl "
        "--out studies/dialogue",
    ),
)
def dialogue(
    probe: Annotated[Path, typer.Option("--probe", help="File of `affectlens probe fit`.")],
    chats: Annotated[
        Path, typer.Option("--chats", help="JSON or JSONL: lists of messages with role, content.")
    ],
    out: Out,
    model: Annotated[
        str | None, typer.Option("--model", help="Default: the one the probe was fitted on.")
    ] = None,
    coverage: Annotated[
        float, typer.Option("--coverage", help="How often each turn's labels hold the true one.")
    ] = 0.9,
    draws: Draws = 2000,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Use a probe of another model.")] = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> None:
    """What a calibrated probe reads in each turn of a dialogue."""
    with sentences():
        from affectlens.sweeps import studies

        request = studies.DialogueRequest(
            probe=probe,
            chats=chats,
            model=model,
            coverage=coverage,
            draws=draws,
            seed=seed,
            device=device,
            dtype=dtype,
            force=force,
        )
        _done(lambda watch: studies.dialogue(request, watch), out, as_json)


def _systems(given: list[str]) -> dict[str, str]:
    from affectlens.core.errors import DataError

    found: dict[str, str] = {}
    for one in given:
        name, sign, text = one.partition("=")
        if not sign or name.strip() in found:
            raise DataError(f"--system takes NAME=TEXT, each name once, not {one!r}.")
        found[name.strip()] = text.strip()
    return found


def _done(
    make: Callable[[Callable[[str, str], None]], StudyResult], out: Path, as_json: bool
) -> None:
    from affectlens.cli.consoles import told
    from affectlens.cli.study_tables import print_study
    from affectlens.sweeps.studies import studied

    print_study(studied(lambda: make(told), out), out, as_json=as_json)
