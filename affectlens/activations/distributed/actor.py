"""What runs in a Ray actor: its own model, which writes the shards it is given."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from affectlens.activations.capture import CAPTURE_VERSION, Sites, prepare
from affectlens.activations.forward.engines import open_engine
from affectlens.activations.forward.plan import CapturePlan
from affectlens.activations.forward.run import run_shards
from affectlens.activations.settings import CaptureSettings
from affectlens.activations.store.folder import open_folder
from affectlens.activations.store.manifest import TABLE
from affectlens.activations.store.shards import ShardWriter, StoreSpec
from affectlens.core.artefact import package_version
from affectlens.core.errors import AffectLensError, ArtefactError, MismatchError
from affectlens.datasets.schema import Corpus
from affectlens.models.generation.listeners import refuse_listeners
from affectlens.models.loading import LanguageModel, load_model
from affectlens.models.registry import BUILTIN


@dataclass(frozen=True)
class Source:
    """What every actor loads.

    Attributes:
        name: As `load_model` takes it.
        device: None is the best the actor has.
        dtype: None is what is fast there.
        folder: Where the process that asks for it stands, for names of folders and files.
        template_variables: What its chat template is told.
    """

    name: str
    device: str | None
    dtype: str | None
    folder: str
    template_variables: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, model: LanguageModel | str | Path, device: str | None, dtype: str | None) -> Source:
        """For a loaded model: the same again."""
        here = str(Path.cwd())
        if isinstance(model, LanguageModel):
            kind = str(model.dtype).removeprefix("torch.")
            variables = dict(model.template_variables)
            return cls(model.name, model.device.type, kind, here, variables)
        return cls(str(model), device, dtype, here)

    def load(self) -> LanguageModel:
        """The model, under the name it was asked for."""
        path = Path(self.folder) / Path(self.name).expanduser()
        where = str(path) if self.name not in BUILTIN and path.exists() else self.name
        loaded = load_model(
            where,
            device=self.device,
            dtype=self.dtype,
            template_variables=self.template_variables,
        )
        return replace(loaded, name=self.name)


@dataclass(frozen=True, eq=False)
class CaptureRequest:
    """What is to be captured; see `affectlens.activations.capture`.

    Attributes:
        corpus: Records.
        sites: Where.
        positions: Which tokens.
        settings: How.
    """

    corpus: Corpus
    sites: Sites
    positions: str | Iterable[str] | None
    settings: CaptureSettings


@dataclass(frozen=True, eq=False)
class Work:
    """A capture as the actors share it.

    Attributes:
        plan: What is run.
        spec: What the store holds.
        settings: How it is run.
        key_length: How many tokens an attention pattern spans, if some are read.
    """

    plan: CapturePlan
    spec: StoreSpec
    settings: CaptureSettings
    key_length: int | None


def plan_work(model: LanguageModel, request: CaptureRequest) -> Work:
    """Plan a capture."""
    refuse_listeners(model.hf, "A capture by Ray workers")
    prepared = prepare(
        model,
        request.corpus,
        sites=request.sites,
        positions=request.positions,
        settings=request.settings,
    )
    return Work(prepared.plan, prepared.spec, prepared.settings, prepared.engine.key_length)


class Actor:
    """A process with a model.

    Args:
        source: The model.
        threads: For computations.
    """

    def __init__(self, source: Source, threads: int) -> None:
        self._source, self._threads = source, threads
        self._model: LanguageModel | None = None
        self._loading, self._computing = threading.Lock(), threading.Lock()

    @property
    def model(self) -> LanguageModel:
        """Loaded when first needed."""
        with self._loading:
            if self._model is None:
                torch.set_num_threads(self._threads)
                self._model = self._source.load()
            return self._model

    def load(self) -> None:
        """Load the model already; what is wrong with it is said by the call that needs it."""
        with contextlib.suppress(AffectLensError):
            self.model  # noqa: B018

    def plan(self, request: CaptureRequest) -> Work:
        """Plan a capture for all actors."""
        return plan_work(self.model, request)

    def open(self, work: Work, where: str) -> None:
        """Get ready to write shards.

        Raises:
            MismatchError: If the weights or the package are not those that the plan is for.
            ArtefactError: If the store is not to be seen from here.
        """
        made = work.spec.provenance
        code = f"{package_version()}/{CAPTURE_VERSION}"
        host = socket.gethostname()
        if made.parameters["code"] != code:
            raise MismatchError(
                f"{host} has version {code} of affectlens, not {made.parameters['code']}; install "
                "the same on all machines."
            )
        if self.model.fingerprint != made.model:
            raise MismatchError(
                f"{self._source.name} has other weights on {host} ({self.model.fingerprint}, not "
                f"{made.model}); give a name or path that means the same model on all machines."
            )
        folder = open_folder(where)
        if folder.size(TABLE) is None:
            raise ArtefactError(
                f"{where} is not to be seen from {host}; give a folder that all machines share, "
                "or a URL such as s3://bucket/name."
            )
        self._work, self._folder = work, folder
        options = {**(work.settings.engine_options or {}), "key_length": work.key_length}
        self._engine = open_engine(work.settings.engine, self.model, **options)

    def work(self, shard: int) -> None:
        """Run and write one shard; returns when it is safe on the disk.

        May be called by a second thread, whose turn to compute comes while this one writes.
        """
        work = self._work
        with ShardWriter(self._folder, work.spec, self.model.device) as writer, self._computing:
            torch.set_num_threads(self._threads)
            run_shards(
                work.plan,
                self._engine,
                writer,
                [shard],
                device=self.model.device,
                padding=work.settings.padding,
            )
