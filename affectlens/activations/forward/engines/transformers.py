"""The default engine: plain forward hooks on the Hugging Face model itself.

The model runs as it was loaded, fused attention included, without its unembedding, and no further
than the deepest site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from affectlens.activations.forward.engines.base import Capabilities, Engine, Reader
from affectlens.core.places import EXTRA_KINDS, KINDS, Site, deepest
from affectlens.models.hooking.hooks import reading


@dataclass(frozen=True, eq=False)
class TransformersEngine(Engine):
    """Raw hooks; see the module."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="transformers",
        kinds=(*KINDS, *EXTRA_KINDS),
        stops_early=True,
        logits_skipped=True,
        left_padding=True,
        keeps_fused_attention=True,
        remote=False,
        help="Hooks on the model as it was loaded",
    )

    def _run(self, inputs: Mapping[str, Any], sites: Sequence[Site], read: Reader) -> None:
        anatomy = self.model.anatomy
        with reading(anatomy, sites, read, stop_after=deepest(sites)):
            anatomy.base(**inputs)
