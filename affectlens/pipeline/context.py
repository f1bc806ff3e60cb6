"""What the stages of a run share: the folder, and what is loaded once and late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.pipeline.file_digests import Digests
from affectlens.pipeline.run_config import RunConfig

if TYPE_CHECKING:
    from affectlens.datasets import Corpus
    from affectlens.evaluation.judges import Judge
    from affectlens.evaluation.topic import Embedder
    from affectlens.models import LanguageModel
    from affectlens.pipeline.own.texts import OwnTexts
    from affectlens.pipeline.settings import Settings
    from affectlens.pipeline.stage import StageRun


@dataclass
class RunContext:
    """One run folder and what is needed to fill it. Nothing is loaded before it is used.

    Stages do not see it: they get a `StageRun`, which gives them what they declare and no more.
    """

    config: RunConfig
    given: Settings | None = None

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.config.out

    @cached_property
    def settings(self) -> Settings:
        """Of every stage: those given, or what follows from the config."""
        from affectlens.pipeline.sizes import settings_of

        return self.given or settings_of(self.config, self.own)

    @cached_property
    def own(self) -> OwnTexts | None:
        """The user's own texts; None if the run is on ours."""
        from affectlens.pipeline.own.texts import OwnTexts

        return None if self.config.own is None else OwnTexts.of(self.config.own)

    @cached_property
    def digests(self) -> Digests:
        """Of files, remembered in the run folder."""
        return Digests(self.folder / "state" / "digests.json")

    @cached_property
    def model(self) -> LanguageModel:
        """The model of the run."""
        from affectlens.models import load_model

        config = self.config
        return load_model(
            config.model,
            device=config.device,
            dtype=config.dtype,
            device_map=config.device_map,
            quantization_config=config.quantize,
            template_variables=config.template_variables,
        )

    @cached_property
    def judge(self) -> Judge:
        """The blind judge whose verdicts are the accuracy."""
        from affectlens.pipeline.judges import main_judge

        labels = () if self.own is None else self.own.labels
        return main_judge(self.config.own, labels, self.folder)

    @cached_property
    def lexicon(self) -> Judge:
        """The second judge."""
        from affectlens.pipeline.judges import second_judge

        return second_judge(self.config.own, self.folder)

    @cached_property
    def embed(self) -> Embedder:
        """Sentence embeddings for the topic score."""
        from affectlens.evaluation.topic import Embedder

        return Embedder()

    def corpus(self, name: str) -> Corpus:
        """An authored corpus, or what stands in its place in a run on the user's own texts.

        ``replies`` are all labelled texts as replies, ``tones`` those that give directions, in
        groups, and ``events`` the prompts that are answered.
        """
        from affectlens.datasets import load

        if self.own is None:
            return load(name)
        return {"replies": self.own.replies, "tones": self.own.grouped, "events": self.own.events}[
            name
        ]

    @property
    def openers(self) -> Mapping[str, Sequence[str]]:
        """First sentences that the model goes on from, by emotion."""
        from affectlens.datasets.authored import openers

        return openers() if self.own is None else self.own.openers

    def source(self, name: str) -> str:
        """Fingerprint of something that stages read, by its name in `sources.SOURCES`."""
        if name not in self._sources:
            from affectlens.pipeline.fingerprints import SOURCES

            self._sources[name] = SOURCES[name](self)
        return self._sources[name]

    @cached_property
    def _sources(self) -> dict[str, str]:
        return {}

    def stage(self, name: str) -> StageRun:
        """What a stage gets to work with.

        Raises:
            UnknownNameError: If there is no such stage.
        """
        from affectlens.pipeline.line import STAGES
        from affectlens.pipeline.stage import StageRun

        return StageRun(self, STAGES[name], getattr(self.settings, name, None))
