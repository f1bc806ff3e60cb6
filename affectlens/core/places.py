"""Places in a block: where a transformer is read or written, by TransformerLens hook name.

`PLACES` is the one table of them. A place that can be read has a name as a `Site`, one that can be
written has a name as a `WritePoint`; what is written at an input of a linear map and what is read
there are the same values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from affectlens.core.errors import unknown


@dataclass(frozen=True, eq=False)
class Place:
    """A row: one place in every block. Rows are told apart by identity, which costs nothing.

    Attributes:
        hook: TransformerLens's name within a block.
        modules: Where it is: the first of these parts of a block that there is, or the sum of what
            they give where it is several.
        side: Whether it is that module's input or its output; None where it is neither.
        holds: ``stream``: the raw residual stream. ``sublayer``: what attention or the MLP adds to
            it. ``units``: heads side by side, or neurons. ``weights``: no vectors of the model.
        kind: What it is called where it is read; None if it is not.
        point: What it is called where it is written; None if it is not.
    """

    hook: str
    modules: tuple[str, ...]
    side: Literal["input", "output"] | None
    holds: Literal["stream", "sublayer", "units", "weights"]
    kind: str | None = None
    point: str | None = None


PLACES: tuple[Place, ...] = (
    Place("hook_resid_pre", ("block",), "input", "stream", "resid_pre", "resid_pre"),
    Place("attn.hook_pattern", ("attn",), None, "weights", kind="pattern"),
    Place("attn.hook_z", ("o_proj",), "input", "units", "z", "o_proj_in"),
    Place("attn.o.hook_out", ("o_proj", "attn"), "output", "sublayer", point="o_proj_out"),
    Place("hook_attn_out", ("attn_adds",), "output", "sublayer", kind="attn_out"),
    Place("hook_resid_mid", ("mid_reader",), "input", "stream", kind="resid_mid"),
    Place("mlp.hook_expert_weights", ("mlp",), None, "weights", kind="expert_weights"),
    Place("mlp.hook_post", ("down_proj",), "input", "units", "mlp_post", "down_proj_in"),
    Place("mlp.out.hook_out", ("down_proj", "mlp"), "output", "sublayer", point="down_proj_out"),
    Place("hook_mlp_out", ("mlp_adds",), "output", "sublayer", kind="mlp_out"),
    Place("hook_resid_post", ("block",), "output", "stream", "resid_post", "resid_post"),
)
"""In the order in which a block computes them."""


def _kinds(*holds: str) -> tuple[str, ...]:
    return tuple(row.kind for held in holds for row in PLACES if row.kind and row.holds == held)


KINDS: tuple[str, ...] = _kinds("stream", "sublayer", "units")
"""What can be read, in the order of lists and stores.

``resid_*`` are the raw residual stream, ``attn_out`` and ``mlp_out`` what the two sublayers add to
it (after a post-norm where the family has one), ``z`` the heads' outputs side by side (the input of
``W_O``, width ``n_heads * d_head``) and ``mlp_post`` the neurons (the input of ``W_down``). In a
mixture of experts ``mlp_post`` are the neurons of all experts times what their outputs are
multiplied by, expert by expert, shared ones last.
"""

EXTRA_KINDS: tuple[str, ...] = _kinds("weights")
"""Kinds that are read on request only, because they are no vectors of the model.

``pattern`` are the attention weights after the softmax: for every query head one row of weights
over the tokens of the text, as wide as the longest text.
"""

POINTS: tuple[str, ...] = tuple(row.point for row in PLACES if row.point)
"""Where one can write, in the order of a block.

``o_proj_out`` and ``down_proj_out`` come before a norm that the family may have between a sublayer
and the residual, so that writing ``Δ`` at an input equals writing ``W·Δ`` at the output.
"""

_BY_KIND = {row.kind: row for row in PLACES if row.kind}
_BY_POINT = {row.point: row for row in PLACES if row.point}
_BY_HOOK = {row.hook: row.kind for row in PLACES if row.kind}
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
        if self.kind not in _BY_KIND:
            raise unknown("site", self.kind, _BY_KIND)
        if self.layer < 0:
            raise unknown("layer", self.layer, ["0", "1", "2", "..."])

    @property
    def place(self) -> Place:
        """Its row."""
        return _BY_KIND[self.kind]

    @property
    def hook_name(self) -> str:
        """TransformerLens's name, for example ``blocks.3.hook_resid_post``."""
        return f"blocks.{self.layer}.{self.place.hook}"

    @classmethod
    def parse(cls, name: str) -> Site:
        """Read a hook name.

        Raises:
            UnknownNameError: If it is not the name of a site we know.
        """
        match = _HOOK_NAME.match(name.strip())
        if match is None or match[2] not in _BY_HOOK:
            raise unknown("site", name, [f"blocks.0.{hook}" for hook in _BY_HOOK])
        return cls(int(match[1]), _BY_HOOK[match[2]])


@dataclass(frozen=True)
class WritePoint:
    """One place of one block where values can be changed.

    Attributes:
        layer: Block index, from 0.
        point: One of :data:`POINTS`.
    """

    layer: int
    point: str

    def __post_init__(self) -> None:
        if self.point not in _BY_POINT:
            raise unknown("write point", self.point, POINTS)

    @property
    def place(self) -> Place:
        """Its row."""
        return _BY_POINT[self.point]

    @property
    def hook_name(self) -> str:
        """TransformerLens's name, for example ``blocks.3.mlp.out.hook_out``."""
        return f"blocks.{self.layer}.{self.place.hook}"


At = TypeVar("At", Site, WritePoint)


def site_index(sites: Sequence[Site], site: Site | str) -> int:
    """Where a site lies among those there are.

    Raises:
        UnknownNameError: If it is none of them.
    """
    site = Site.parse(site) if isinstance(site, str) else site
    if site not in sites:
        raise unknown("site", site.hook_name, [s.hook_name for s in sites])
    return sites.index(site)


def in_order(places: Iterable[At]) -> list[At]:
    """Sites or write points in the order in which a forward pass comes to them."""
    return sorted(places, key=_when)


def deepest(sites: Iterable[Site]) -> Site:
    """The site a forward pass reaches last; to skip what follows."""
    return max(sites, key=_when)


def _when(at: Site | WritePoint) -> tuple[int, int]:
    return at.layer, PLACES.index(at.place)


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
    if kind not in _BY_KIND:
        raise unknown("site", part, [*_BY_KIND, "resid_post@8", "blocks.0.hook_resid_post"])
    if not layers:
        return [Site(layer, kind) for layer in range(n_layers)]
    return [Site(layer, kind) for layer in layer_range(layers, n_layers)]


def layer_range(text: str, n_layers: int, *others: str) -> range:
    """Read ``"8"`` or ``"4-9"``, both ends included.

    Args:
        text: What a user wrote.
        n_layers: How many blocks the model has.
        others: What else may stand there, for the message.

    Raises:
        UnknownNameError: If a layer does not exist, or the range is empty.
    """
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, n_layers)
    if not first <= last < n_layers:
        raise unknown("layer", text, [f"0-{n_layers - 1}", *others, *map(str, range(n_layers))])
    return range(first, last + 1)
