"""What a reproduction is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from affectlens.core.errors import DataError, unknown

ACCEPT: tuple[str, ...] = ("judge", "all")


@dataclass(frozen=True)
class StudyRequest:
    """A study, a model, and the material.

    Attributes:
        study: A name in `affectlens.reproductions.REPRODUCTIONS`.
        model: Built-in name, hub id, local folder or GGUF file.
        out: Folder of the reproduction; work already done there is kept.
        scenarios: The study's own scenario file; default: ours.
        test: A second such file to test on; default: a part of the first, by scenario.
        groups: At most so many groups (one content under every emotion) to fit on; None: all.
        events: At most so many contents to test on; None: all.
        accept: ``"judge"``: fit on prompts whose reply the judge accepts, as published; ``"all"``:
            on all of them, for models that do not follow instructions.
        corrections: Names of the study's corrections that shall be made; none by default.
        endpoint: Address of an OpenAI-compatible server, for the judge that is told the target.
        endpoint_model: What that server calls its model.
        device, dtype: See `affectlens.load_model`.
        template_variables: What the chat template is told, by name.
        seed: Of everything random.
        force: Do steps again even if nothing changed.
    """

    study: str
    model: str
    out: Path
    scenarios: Path | None = None
    test: Path | None = None
    groups: int | None = None
    events: int | None = None
    accept: str = "judge"
    corrections: tuple[str, ...] = ()
    endpoint: str | None = None
    endpoint_model: str | None = None
    device: str | None = None
    dtype: str | None = "float32"
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        if self.accept not in ACCEPT:
            raise unknown("way to accept prompts", self.accept, ACCEPT)
        for name in ("groups", "events"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise DataError(f"--{name} must be at least 1, not {count}.")
        if (self.endpoint is None) != (self.endpoint_model is None):
            raise DataError(
                "A judge by endpoint needs an address and the name of its model; give "
                "--endpoint and --endpoint-model, or neither."
            )
        if self.test is not None and self.scenarios is None:
            raise DataError("--test is a second scenario file; give the first with --scenarios.")
