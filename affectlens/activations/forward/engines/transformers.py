"""The default engine: plain forward hooks on the Hugging Face model itself.

The model runs as it was loaded, fused attention included, without its unembedding, and no further
than the deepest site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from affectlens.activations.forward.engines.base import Capabilities, Engine, Reader
from affectlens.core.errors import UnknownNameError
from affectlens.core.places import EXTRA_KINDS, KINDS, Site, deepest
from affectlens.models.hooking.hooks import check_sites, reading
from affectlens.models.mixtures.mixture import Mixture, MixtureCall
from affectlens.models.mixtures.watching import watching_mixtures


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

    def mixture(self, site: Site) -> Mixture | None:
        """The mixture of experts that a site is of, whose values no single module holds.

        Raises:
            UnknownNameError: If the site is of a mixture only, and there is none.
        """
        if site.kind not in ("mlp_post", "expert_weights"):
            return None
        part = self.model.anatomy.blocks[site.layer]
        if part.experts is None and site.kind == "expert_weights":
            raise UnknownNameError(
                f"There is no {site.hook_name} in this {self.model.anatomy.family}: in block "
                f"{site.layer} {part.lacks.get('experts', 'the MLP is no mixture of experts')}."
            )
        return part.experts

    def check(self, sites: Sequence[Site]) -> None:
        """See `Engine.check`."""
        check_sites(self.model.anatomy, [site for site in sites if self.mixture(site) is None])

    def width(self, site: Site) -> int:
        """See `Engine.width`."""
        mixture = self.mixture(site)
        if mixture is None:
            return super().width(site)
        return mixture.n_neurons if site.kind == "mlp_post" else mixture.experts.n_experts

    def _run(self, inputs: Mapping[str, Any], sites: Sequence[Site], read: Reader) -> None:
        anatomy, shape = self.model.anatomy, inputs["input_ids"].shape
        found = {site: self.mixture(site) for site in sites}
        mixtures = {site.layer: mixture for site, mixture in found.items() if mixture is not None}
        end, plain = deepest(sites), [site for site, mixture in found.items() if mixture is None]
        if end not in plain:  # what a mixture did is told once its output is there
            end = Site(end.layer, "mlp_out")
            plain.append(end)

        def mixed(layer: int, call: MixtureCall) -> None:
            weights, neurons = Site(layer, "expert_weights"), Site(layer, "mlp_post")
            if weights in found:
                read(weights, call.routed.weights.reshape(*shape, -1))
            if neurons in found:
                read(neurons, call)

        def seen(site: Site, value: Tensor) -> None:
            if site in found:
                read(site, value)

        with (
            watching_mixtures(mixtures, mixed),
            reading(anatomy, plain, seen, stop_after=end),
        ):
            anatomy.base(**inputs)
