"""An engine that reads units together with the scale of the norm after their sublayer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.activations.forward.engines.base import Reader
from affectlens.activations.forward.engines.transformers import TransformersEngine
from affectlens.activations.forward.gather import Derived
from affectlens.circuits.attribution.postnorm import norm_gain, token_scale
from affectlens.core.places import Site, WritePoint
from affectlens.models.hooking.hooks import Writer, writing
from affectlens.models.mixtures.mixture import MixtureCall
from affectlens.models.mixtures.routing import Rows

OUTPUTS = {"z": "attn_out", "mlp_post": "mlp_out", "expert_weights": "mlp_out"}
"""What a sublayer adds to the residual, by what it is linear in: units, and gates of experts."""

_BEFORE_NORM = {"attn_out": "o_proj_out", "mlp_out": "down_proj_out"}


@dataclass(frozen=True, eq=False)
class Scaled:
    """Units ``x`` of a batch with the scale ``s`` of the norm after them: ``(x, s x, s)``.

    Attributes:
        units: At the input of the projection.
        scale: Of each token.
    """

    units: Float[Tensor, "batch pos width"] | MixtureCall
    scale: Float[Tensor, "batch pos"]

    @property
    def device(self) -> torch.device:
        """Of both."""
        return self.units.device

    def rows(
        self, index: Int[Tensor, " token"], bags: Int[Tensor, " row"] | None
    ) -> Float[Tensor, "row twice_width_and_one"]:
        """Of single tokens, or means over bags of them; see `Pick`."""
        scale = self.scale.flatten()
        rows = Rows.means(index, bags)
        if isinstance(self.units, MixtureCall):
            plain = self.units.rows(index, bags)
            scaled = self.units.times(scale).rows(index, bags)
        else:
            units = self.units.flatten(0, 1)
            plain, scaled = rows.sums(units), rows.times(scale).sums(units)
        return torch.cat([plain, scaled, rows.sums(scale[:, None])], dim=1)


@dataclass(frozen=True, eq=False)
class UnitEngine(TransformersEngine):
    """Gives `Scaled` at ``z`` and ``mlp_post`` where a norm follows the sublayer.

    It wants the sublayer's output among the sites, which is where the scale can be seen. What a
    norm's scale is taken to be includes every factor on the way from the projection to the stream.
    """

    @cached_property
    def gains(self) -> Mapping[Site, Float[Tensor, " d_model"]]:
        """Weights of the norms after sublayers, by the site of what they add."""
        found: dict[Site, Tensor] = {}
        for part in self.model.anatomy.blocks:
            norms = {"attn_out": part.attn_post_norm, "mlp_out": part.mlp_post_norm}
            for kind, norm in norms.items():
                like = torch.empty(self.model.d_model, device=self.model.device)
                gain = norm_gain(norm, like)
                if gain is not None:
                    found[Site(part.layer, kind)] = gain
        return found

    def sites(self) -> list[Site]:
        """All units there are, the gates of experts with biases, and what they add."""
        found: list[Site] = []
        for part in self.model.anatomy.blocks:
            kinds = ["z", "attn_out"] if part.n_heads else []
            if part.experts is not None:
                kinds.append("expert_weights")
            if part.n_neurons:
                kinds += ["mlp_post", "mlp_out"]
            found += [Site(part.layer, kind) for kind in kinds]
        return found

    def scaled(self, site: Site) -> bool:
        """Whether a norm follows the units of a site."""
        return site.kind in OUTPUTS and Site(site.layer, OUTPUTS[site.kind]) in self.gains

    def width(self, site: Site) -> int:
        """See `Engine.width`."""
        width = super().width(site)
        return 2 * width + 1 if self.scaled(site) else width

    def _run(self, inputs: Mapping[str, Any], sites: Sequence[Site], read: Reader) -> None:
        # Units, until their scale is known.
        held: dict[Site, list[tuple[Site, Tensor | MixtureCall]]] = {}
        before: dict[Site, Tensor] = {}  # a sublayer's output before its norm

        def keep(site: Site) -> Writer:
            def look(value: Tensor) -> None:
                before[site] = value

            return look

        def seen(site: Site, value: Tensor | Derived) -> None:
            if self.scaled(site):
                assert isinstance(value, (Tensor, MixtureCall))
                held.setdefault(Site(site.layer, OUTPUTS[site.kind]), []).append((site, value))
                return
            if site in self.gains:
                assert isinstance(value, Tensor)
                scale = token_scale(before.pop(site), value, self.gains[site])
                for units, x in held.pop(site, []):
                    read(units, Scaled(x, scale))
            read(site, value)

        looks = {
            WritePoint(site.layer, _BEFORE_NORM[site.kind]): keep(site)
            for site in self.gains
            if site in sites
        }
        with writing(self.model.anatomy, looks):
            super()._run(inputs, sites, seen)
