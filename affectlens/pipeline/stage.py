"""What a stage is, and what it gets to see of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import fingerprint
from affectlens.pipeline.engine import Files

if TYPE_CHECKING:
    from affectlens.datasets import Corpus, Record
    from affectlens.evaluation.judges import Judge
    from affectlens.evaluation.topic import Embedder
    from affectlens.models import LanguageModel
    from affectlens.pipeline.context import RunContext


@dataclass(frozen=True)
class Row:
    """One stage of the line.

    Attributes:
        name: Also of its command, and of its field in `settings.Settings`, if it has settings.
        help: What its command does.
        title: What the progress line says.
        needs: Stages whose files it reads.
        reads: What else it reads, names in `sources.SOURCES`.
        work: Does it, and returns the files it wrote, relative to the run folder; or, for files
            whose checksum is known, a mapping from file to checksum.
    """

    name: str
    help: str
    title: str
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    work: Callable[[StageRun], Files]


@dataclass(frozen=True)
class StageRun:
    """A stage at work: its settings, and what it declared to read. The rest is out of reach.

    What a stage can see is what its key is made of, so a result cannot depend on more.
    """

    context: RunContext
    row: Row
    settings: Any

    @property
    def folder(self) -> Path:
        """The run folder, to write to."""
        return self.context.folder

    @property
    def force(self) -> bool:
        """Whether the user wants everything done again."""
        return self.context.config.force

    def input(self, stage: str, file: str) -> Path:
        """A file of another stage.

        Raises:
            LookupError: If this stage does not say that it needs that one.
        """
        if stage not in self.row.needs:
            raise LookupError(f"stage {self.row.name} reads {file} but does not need {stage}")
        return self.folder / file

    @property
    def model(self) -> LanguageModel:
        """The model of the run, with its tokenizer."""
        self._declared("model", "text")
        return self.context.model

    @property
    def judge(self) -> Judge:
        """The blind judge."""
        self._declared("judge")
        return self.context.judge

    @property
    def lexicon(self) -> Judge:
        """The second judge."""
        self._declared("lexicon")
        return self.context.lexicon

    @property
    def embed(self) -> Embedder:
        """Sentence embeddings."""
        self._declared("encoder")
        return self.context.embed

    def corpus(self, name: str) -> Corpus:
        """``"replies"``, ``"tones"`` or ``"events"``: ours, or what was made of the user's own."""
        self._declared("events" if name == "events" else "corpora")
        return self.context.corpus(name)

    @property
    def openers(self) -> Mapping[str, Sequence[str]]:
        """First sentences that the model goes on from, by emotion; none if it is not to."""
        self._declared("openers")
        return self.context.openers

    def events(self, split: str) -> list[Record]:
        """The scenario-events of a split, at most ``settings.scenarios`` scenarios of it."""
        corpus = self.corpus("events").filter(split=split)
        scenarios, n = corpus.scenarios(), self.settings.scenarios
        if n is not None and n < len(scenarios):
            # Evenly over the themes, which follow one another in the corpus.
            scenarios = tuple(scenarios[i * len(scenarios) // n] for i in range(n))
        keep = set(scenarios)
        return [record for record in corpus if record.scenario in keep]

    def spread_events(self, split: str) -> list[Record]:
        """`n_events` of the settings from `events`, spread evenly over scenarios and valences."""
        from affectlens.datasets import Corpus, spread

        events = self.events(split)
        return spread(
            Corpus(split, "texts", tuple(events)), min(self.settings.n_events, len(events))
        )

    def made_by(self) -> str:
        """Fingerprint of all it reads but the files of other stages, and of the versions."""
        from affectlens.pipeline.fingerprints import versions

        return fingerprint(versions(), {name: self.context.source(name) for name in self.row.reads})

    def _declared(self, *names: str) -> None:
        missing = [name for name in names if name not in self.row.reads]
        if missing:
            raise LookupError(f"stage {self.row.name} does not say that it reads {missing}")
