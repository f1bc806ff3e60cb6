"""A step at work: what it asked for, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.pipeline.fingerprints import versions

if TYPE_CHECKING:
    from affectlens.evaluation.judges import Judge
    from affectlens.models import LanguageModel
    from affectlens.pipeline.context import RunContext
    from affectlens.reproductions.reproduction import Reproduction, Step
    from affectlens.reproductions.request import StudyRequest


@dataclass(frozen=True)
class StudyRun:
    """One step of one study; what it can see is what its key is made of.

    Attributes:
        context: Loads model and judge, once and late.
        request: What the user asked.
        study: Which study.
        step: Which step of it.
        settings: The study's constants.
    """

    context: RunContext
    request: StudyRequest
    study: Reproduction
    step: Step
    settings: Any

    @property
    def folder(self) -> Path:
        """Where files are written, and read from by those who need the step."""
        return self.context.folder

    @property
    def model(self) -> LanguageModel:
        """The model."""
        self._declared("model", self.step.reads)
        return self.context.model

    @property
    def judge(self) -> Judge:
        """The blind judge."""
        self._declared("judge", self.step.reads)
        return self.context.judge

    def option(self, name: str) -> Any:
        """A field of the request."""
        self._declared(name, self.step.options)
        return getattr(self.request, name)

    def corrected(self, name: str) -> bool:
        """Whether a correction is made."""
        self._declared(name, self.step.corrections)
        return name in self.request.corrections

    def input(self, step: str, file: str) -> Path:
        """A file of another step."""
        self._declared(step, self.step.needs)
        return self.folder / file

    def depends(self) -> Mapping[str, Any]:
        """What the result depends on, the files of other steps apart."""
        return {
            "study": self.study.name,
            "versions": versions(),
            "settings": self.settings,
            "read": {name: self._source(name) for name in self.step.reads},
            "options": {name: _plain(self.option(name)) for name in self.step.options},
            "corrections": {name: self.corrected(name) for name in self.step.corrections},
        }

    def _source(self, name: str) -> str:
        if name == "material":
            return self.study.material(self.request)
        return self.context.source(name)

    def _declared(self, name: str, among: tuple[str, ...]) -> None:
        if name not in among:
            raise LookupError(f"step {self.step.name} does not say that it reads {name}")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
