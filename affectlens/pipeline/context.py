"""What the steps of a run share: the folder, the model (loaded late), the judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import ArtefactError, fingerprint
from affectlens.core.artefact import read_json, write_json
from affectlens.pipeline.config import RunConfig

if TYPE_CHECKING:
    from affectlens.datasets import Corpus, Record
    from affectlens.evaluation.judges import Judge
    from affectlens.evaluation.topic import Embedder
    from affectlens.models import LanguageModel
    from affectlens.models.generation import GenerationSettings


@dataclass
class RunContext:
    """One run folder and what is needed to fill it. Nothing is loaded before it is used."""

    config: RunConfig

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.config.out

    @cached_property
    def model(self) -> LanguageModel:
        """The model of the run."""
        from affectlens.models import load_model

        return load_model(self.config.model, device=self.config.device, dtype=self.config.dtype)

    @cached_property
    def judge(self) -> Judge:
        """The blind judge whose verdicts are the accuracy."""
        from affectlens.evaluation.judges import load_judge

        return load_judge("encoder")

    @cached_property
    def lexicon(self) -> Judge:
        """The second judge."""
        from affectlens.evaluation.judges import load_judge

        return load_judge("lexicon")

    @cached_property
    def embed(self) -> Embedder:
        """Sentence embeddings for the topic score."""
        from affectlens.evaluation.topic import Embedder

        return Embedder()

    @cached_property
    def settings(self) -> GenerationSettings:
        """Of generation: the same in every arm."""
        from affectlens.models.generation import GenerationSettings

        return GenerationSettings(max_new_tokens=self.config.max_new_tokens, seed=self.config.seed)

    def events(self, split: str) -> list[Record]:
        """The scenario-events of a split, at most ``config.events`` scenarios of it."""
        from affectlens.datasets import load

        corpus: Corpus = load("events").filter(split=split)
        scenarios = corpus.scenarios()
        if self.config.events is not None and self.config.events < len(scenarios):
            # Evenly over the themes, which follow one another in the corpus.
            n = self.config.events
            scenarios = tuple(scenarios[i * len(scenarios) // n] for i in range(n))
        keep = set(scenarios)
        return [record for record in corpus if record.scenario in keep]

    @cached_property
    def model_identity(self) -> str:
        """Fingerprint of the model, remembered by the files it was loaded from.

        A second run in which no file changed need not load a gigabyte to learn that.
        """
        note = self.folder / "state" / "model.json"
        files = source_files(self.config.model)
        key = fingerprint(self.config.model, files) if files else None
        try:
            known: Mapping[str, Any] = read_json(note)
            if key is not None and known.get("files") == key:
                return str(known["fingerprint"])
        except (ArtefactError, KeyError, AttributeError):
            pass
        found = self.model.fingerprint
        # Loading may have fetched the files, so look again.
        files = source_files(self.config.model)
        write_json(note, {"files": fingerprint(self.config.model, files), "fingerprint": found})
        return found


def source_files(name: str) -> Sequence[tuple[str, int, int]]:
    """Name, size and time of the files behind a model name; empty if they are not local (yet)."""
    from affectlens.models.registry import BUILTIN, list_models

    if name in BUILTIN:
        info = next(i for i in list_models() if i.name == name)
        path = info.path
    else:
        path = Path(name)
    files = sorted(path.glob("*")) if path.is_dir() else [path] if path.is_file() else []
    return [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
