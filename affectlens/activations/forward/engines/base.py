"""What an engine is: whatever can run a batch and hand out the value of each site on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from affectlens.activations.forward.gather import Derived
from affectlens.core.errors import DataError, ModelError, UnknownNameError
from affectlens.core.places import Site
from affectlens.models.hooking.attention_patterns import flat_pattern
from affectlens.models.hooking.hooks import check_sites
from affectlens.models.loading import LanguageModel
from affectlens.models.step import accepted

Reader = Callable[[Site, Tensor | Derived], None]
"""Gets a site and its live value ``[batch, pos, width]``; copy what must outlive the call."""


@dataclass(frozen=True)
class Capabilities:
    """What an engine can and cannot do.

    Attributes:
        name: Of the engine.
        kinds: Kinds of site it reads.
        stops_early: Whether blocks after the deepest site asked for are not run.
        logits_skipped: Whether the unembedding is never run.
        left_padding: Whether texts may be filled up on the left.
        keeps_fused_attention: Whether attention runs in the fused kernel the model was loaded with.
        remote: Whether the model may run on another machine.
        help: What it is, or what else to know, in one line.
    """

    name: str
    kinds: tuple[str, ...]
    stops_early: bool
    logits_skipped: bool
    left_padding: bool
    keeps_fused_attention: bool
    remote: bool
    help: str


@dataclass(frozen=True, eq=False)
class Engine(ABC):
    """Runs batches of token ids through one model, which is left as it is.

    Attributes:
        model: The model.
        key_length: How many tokens an attention pattern spans, the length of the longest text;
            needed for sites of kind ``pattern`` only.
    """

    model: LanguageModel
    key_length: int | None = None
    capabilities: ClassVar[Capabilities]

    @property
    def name(self) -> str:
        """One of `affectlens.activations.forward.engines.ENGINES`."""
        return self.capabilities.name

    def width(self, site: Site) -> int:
        """Size of the last axis of a site's value.

        Raises:
            UnknownNameError: If this engine does not read such sites.
            DataError: If it is a pattern and there is no ``key_length``.
        """
        self._known(site)
        if site.kind != "pattern":
            return self.model.anatomy.width(site)
        return self.model.anatomy.blocks[site.layer].n_heads * self._keys()

    def check(self, sites: Sequence[Site]) -> None:
        """Refuse sites that the model does not have, or that this engine does not read.

        Raises:
            UnknownNameError: If there is one; the message says why.
        """
        for site in sites:
            self._known(site)
        check_sites(self.model.anatomy, sites)

    def _known(self, site: Site) -> None:
        if site.kind not in self.capabilities.kinds:
            raise UnknownNameError(
                f"The {self.name} engine does not read {site.hook_name}; it reads "
                f"{', '.join(self.capabilities.kinds)}; use engine='transformers'."
            )

    def forward(
        self,
        ids: Int[Tensor, "batch pos"],
        mask: Int[Tensor, "batch pos"],
        sites: Sequence[Site],
        read: Reader,
        *,
        left: bool | None = None,
    ) -> None:
        """One forward pass, without gradients.

        Args:
            ids: Token ids, padded on either side, on the model's device.
            mask: 1 for real tokens.
            sites: What to read, each once.
            read: Called once per site with ``[batch, pos, width]``. What it raises ends the pass
                and comes out unchanged. A pattern's keys are counted from the text's first real
                token.
            left: Whether any text is filled up on the left; default: the mask is looked at, which
                waits for the device.

        Raises:
            UnknownNameError: If a layer does not exist, or the family or the engine has no such
                site.
            ModelError: If the pass ended and a site was not reached.
        """
        self.check(sites)
        missing = set(sites)

        def once(site: Site, value: Tensor | Derived) -> None:
            missing.discard(site)
            if site.kind == "pattern" and isinstance(value, Tensor):
                value = flat_pattern(value, mask, self._keys())
            read(site, value)

        with torch.inference_mode():
            if left is None:
                left = not bool(mask[:, 0].all())
            self._run(self._inputs(ids, mask, left), sites, once)
        if missing:
            name = min(missing).hook_name
            raise ModelError(f"{self.model.name} never ran {name}; leave that site out.")

    @abstractmethod
    def _run(self, inputs: Mapping[str, Any], sites: Sequence[Site], read: Reader) -> None:
        """Run the model; patterns are read as ``[batch, head, query, key]``."""

    def _inputs(self, ids: Tensor, mask: Tensor, left: bool) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
        if left or not self.model.anatomy.causal:
            inputs["attention_mask"] = mask
        # Otherwise the padding comes after all that is read, and nothing sees it: without a mask
        # fused attention takes its fast way.
        if left:
            if not self.model.padding.upto(mask.shape[1]).left:
                raise ModelError(
                    f"Padding on the left changes what {self.model.name} computes; use "
                    "padding='right'."
                )
            places = self.model.position_ids(mask)
            inputs |= accepted(self.model.anatomy.base, position_ids=places)
        return inputs

    def _keys(self) -> int:
        if self.key_length is None:
            raise DataError("Attention patterns need key_length, the length of the longest text.")
        return self.key_length


@dataclass(frozen=True)
class EngineRow:
    """An engine as it stands in the table of all.

    Attributes:
        engine: The class.
    """

    engine: type[Engine]

    @property
    def name(self) -> str:
        """What users ask for."""
        return self.engine.capabilities.name

    @property
    def help(self) -> str:
        """What it is, in one line."""
        return self.engine.capabilities.help
