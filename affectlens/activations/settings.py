"""What can be set of a pass over a corpus, and of a capture that keeps its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from affectlens.core.settings import indifferent

MAX_TOKENS_PER_BATCH = 4096


@dataclass(frozen=True)
class PassSettings:
    """How a corpus goes through a model, whatever becomes of what is read.

    Attributes:
        max_tokens_per_batch: Padded tokens of one forward pass; a longer text runs alone. If there
            is no memory for them, batches are halved.
        overlong: What to do with texts longer than the context: ``"error"``, ``"truncate"`` (cut
            the text or reply at its end) or ``"skip"``. How many there were is counted.
        padding: Side on which short texts are filled up; changes nothing but rounding.
        engine: What runs the model; see `affectlens.activations.forward.engines`.
        engine_options: What that engine takes.
        template_variables: What the chat template is told besides what the model was loaded with,
            for example ``{"enable_thinking": True}``; the tokens, and all that it is told, tell
            results apart.
    """

    max_tokens_per_batch: int = indifferent(MAX_TOKENS_PER_BATCH)
    overlong: str = "error"
    padding: str = indifferent("right")
    engine: str = "transformers"
    engine_options: Mapping[str, Any] | None = indifferent(None)
    template_variables: Mapping[str, Any] | None = indifferent(None)

    def stored(self) -> CaptureSettings:
        """The capture whose rows such a pass reads."""
        shared = {one.name: getattr(self, one.name) for one in fields(PassSettings)}
        return CaptureSettings(**shared)


@dataclass(frozen=True)
class CaptureSettings(PassSettings):
    """How a corpus goes through a model, and how its rows are kept.

    Attributes:
        dtype: Of the numbers stored: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"int8"``.
        shard_bytes: Bytes of one file of the store; two of them are held in memory. Default:
            32 MiB, or 64 rows where those are more.
    """

    dtype: str = "float32"
    shard_bytes: int | None = indifferent(None)

    def stored(self) -> CaptureSettings:
        """See `PassSettings.stored`."""
        return self


class PassOptions(TypedDict, total=False):
    """Keywords for `PassSettings`, which says what each does."""

    max_tokens_per_batch: int
    overlong: str
    padding: str
    engine: str
    engine_options: Mapping[str, Any] | None
    template_variables: Mapping[str, Any] | None


class CaptureOptions(PassOptions, total=False):
    """Keywords for `CaptureSettings`, which says what each does."""

    dtype: str
    shard_bytes: int | None
