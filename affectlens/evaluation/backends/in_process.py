"""Our own generation, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affectlens.evaluation.backends.base import (
    Advance,
    Backend,
    BackendKind,
    BackendRequest,
    Ids,
)

if TYPE_CHECKING:
    from affectlens.models import LanguageModel
    from affectlens.models.generation.generation import GenerationSettings
    from affectlens.steering import SteeringPack


@dataclass(frozen=True, eq=False)
class Transformers:
    """Our own generation, in this process."""

    model: LanguageModel

    def generate(
        self,
        prompts: Sequence[Ids],
        specs: Sequence[Any],
        pack: SteeringPack | None,
        settings: GenerationSettings,
        advance: Advance,
    ) -> list[Ids]:
        """See `Backend.generate`."""
        from affectlens.models.generation.generation import generate_ids
        from affectlens.steering.hooking.steered_passes import generate_steered

        if pack is None:
            return generate_ids(self.model, prompts, settings, on_progress=advance)
        return generate_steered(
            self.model, pack, prompts, list(specs), settings, on_progress=advance
        )


def open_transformers(request: BackendRequest) -> AbstractContextManager[Backend]:
    """The model that is loaded already."""
    return nullcontext(Transformers(request.model))


TRANSFORMERS = BackendKind(
    "transformers", "our own generation, in this process", open_transformers, has_address=False
)
