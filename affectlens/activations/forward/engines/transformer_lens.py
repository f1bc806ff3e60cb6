"""TransformerLens's bridge as an engine, reading by hook name.

A model that was loaded from a ``TransformerBridge`` runs in that bridge. Any other gets a bridge of
its own, around a second module tree over the same weights: TransformerLens replaces the modules of
what it wraps. Hooks of `affectlens.models.hooking.hooks` and steering do not apply to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from affectlens.activations.forward.engines.base import Capabilities, Engine, Reader
from affectlens.core.places import EXTRA_KINDS, KINDS, Site
from affectlens.models.anatomy.transformer_lens import build_bridge
from affectlens.models.hooking.hooks import StopForward


@dataclass(frozen=True, eq=False)
class TransformerLensEngine(Engine):
    """A ``TransformerBridge``, run with hooks; see the module."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="transformer_lens",
        kinds=(*KINDS, *EXTRA_KINDS),
        stops_early=True,
        logits_skipped=True,
        left_padding=True,
        keeps_fused_attention=False,
        remote=False,
        help="TransformerLens computes attention itself, step by step",
    )

    @cached_property
    def bridge(self) -> Any:
        """The bridge, without compatibility mode: weights are neither folded nor centred."""
        bridge = self.model.bridge
        return build_bridge(self.model.hf) if bridge is None else bridge

    def _run(self, inputs: Mapping[str, Any], sites: Sequence[Site], read: Reader) -> None:
        stop, left = StopForward(), set(sites)

        def hook_at(site: Site) -> Callable[..., None]:
            def seen(value: Tensor, hook: Any) -> None:  # noqa: ARG001, a name TransformerLens uses
                # Heads come apart here, patterns stay as they are.
                read(site, value if site.kind == "pattern" else value.flatten(2))
                left.discard(site)
                if not left:
                    raise stop

            return seen

        rest = {name: value for name, value in inputs.items() if name != "input_ids"}
        try:
            self.bridge.run_with_hooks(
                inputs["input_ids"],
                fwd_hooks=[(site.hook_name, hook_at(site)) for site in sites],
                return_type=None,
                **rest,
            )
        except StopForward as stopped:
            if stopped is not stop:
                raise
            stop.__traceback__ = None  # as in `affectlens.models.hooking.hooks.reading`
