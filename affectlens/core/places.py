"""Sites: where in a transformer something is read or written, by TransformerLens hook name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from affectlens.core.errors import unknown

KINDS: tuple[str, ...] = (
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "z",
    "mlp_post",
)
"""In the order in which a block computes them, apart from ``z`` and ``mlp_post``.

``resid_*`` are the raw residual stream, ``attn_out`` and ``mlp_out`` what the two sublayers add to
it (after a post-norm where the family has one), ``z`` the heads' outputs side by side (the input of
``W_O``, width ``n_heads * d_head``) and ``mlp_post`` the neurons (the input of ``W_down``).
"""

EXTRA_KINDS: tuple[str, ...] = ("pattern",)
"""Kinds that are read on request only, because they are no vectors of the model.

``pattern`` are the attention weights after the softmax: for every query head one row of weights
over the tokens of the text, as wide as the longest text.
"""

_HOOKS = {kind: f"hook_{kind}" for kind in KINDS} | {
    "z": "attn.hook_z",
    "mlp_post": "mlp.hook_post",
    "pattern": "attn.hook_pattern",
}
_BY_HOOK = {hook: kind for kind, hook in _HOOKS.items()}
_HOOK_NAME = re.compile(r"^blocks\.(\d+)\.(.+)$")


@dataclass(frozen=True, order=True)
class Site:
    """One place in one block.

    Attributes:
        layer: Block index, from 0 (never the ``hidden_states`` index, which is one more).
        kind: One of :data:`KINDS` or :data:`EXTRA_KINDS`.
    """

    layer: int
    kind: str

    def __post_init__(self) -> None:
        if self.kind not in _HOOKS:
            raise unknown("site", self.kind, _HOOKS)
        if self.layer < 0:
            raise unknown("layer", self.layer, ["0", "1", "2", "..."])

    @property
    def hook_name(self) -> str:
        """TransformerLens's name, for example ``blocks.3.hook_resid_post``."""
        return f"blocks.{self.layer}.{_HOOKS[self.kind]}"

    @classmethod
    def parse(cls, name: str) -> Site:
        """Read a hook name.

        Raises:
            UnknownNameError: If it is not the name of a site we know.
        """
        match = _HOOK_NAME.match(name.strip())
        if match is None or match[2] not in _BY_HOOK:
            raise unknown("site", name, [f"blocks.0.{hook}" for hook in _HOOKS.values()])
        return cls(int(match[1]), _BY_HOOK[match[2]])


def expand_sites(spec: str | Site | Iterable[str | Site], n_layers: int) -> tuple[Site, ...]:
    """Turn what a user asks into sites, sorted by layer.

    Args:
        spec: A kind (``"resid_post"`` means all layers), a kind with layers
            (``"resid_post@8"``, ``"mlp_out@4-9"``), a hook name, a `Site`, or several of
            these, in one comma-separated string or a sequence.
        n_layers: How many blocks the model has.

    Raises:
        UnknownNameError: If a kind, hook name or layer does not exist.
    """
    parts: Sequence[str | Site]
    if isinstance(spec, Site):
        parts = [spec]
    elif isinstance(spec, str):
        parts = [p.strip() for p in spec.split(",") if p.strip()]
    else:
        parts = list(spec)
    sites: set[Site] = set()
    for part in parts:
        for site in _expand_one(part, n_layers):
            if site.layer >= n_layers:
                raise unknown("layer", site.layer, [str(i) for i in range(n_layers)])
            sites.add(site)
    if not sites:
        raise unknown("site", "", KINDS)
    order = (*KINDS, *EXTRA_KINDS)
    return tuple(sorted(sites, key=lambda s: (s.layer, order.index(s.kind))))


def _expand_one(part: str | Site, n_layers: int) -> list[Site]:
    if isinstance(part, Site):
        return [part]
    if part.startswith("blocks."):
        return [Site.parse(part)]
    kind, _, layers = part.partition("@")
    if kind not in _HOOKS:
        raise unknown("site", part, [*_HOOKS, "resid_post@8", "blocks.0.hook_resid_post"])
    if not layers:
        return [Site(layer, kind) for layer in range(n_layers)]
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", layers)
    if match is None:
        raise unknown("layer", layers, [str(i) for i in range(n_layers)])
    first, last = int(match[1]), int(match[2] or match[1])
    if last >= n_layers or first > last:
        raise unknown("layer", layers, [f"0-{n_layers - 1}", *map(str, range(n_layers))])
    return [Site(layer, kind) for layer in range(first, last + 1)]
