"""What a model has and has not, in words: per layer, and when more is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from affectlens.core.errors import UnknownNameError
from affectlens.core.places import Site, WritePoint
from affectlens.models.anatomy.anatomy import Anatomy, BlockParts
from affectlens.models.mixtures.mixture import Mixture

_MEANING = {
    "mid_reader": "resid_mid",
    "attn_adds": "attn_out",
    "mlp_adds": "mlp_out",
    "o_proj": "heads",
    "down_proj": "neurons",
}


def has(part: BlockParts, at: Site | WritePoint) -> bool:
    """Whether a block has a place."""
    if at.place.side is None:
        return part.n_heads > 0
    return any(getattr(part, name) for name in at.place.modules)


def missing(anatomy: Anatomy, at: Site | WritePoint) -> UnknownNameError:
    """What to raise when a block has not what is asked for: its layer, the reason, and where is.

    Args:
        anatomy: The model.
        at: A place that the block has not.
    """
    part = anatomy.blocks[at.layer]
    attribute = at.place.modules[0] if at.place.side else "o_proj"
    why = part.lacks.get(attribute, "it is not known where that is")
    there = [n for n in range(anatomy.n_layers) if has(anatomy.blocks[n], type(at)(n, _name(at)))]
    where = f"it is at layers {spans(there)}" if there else "no layer of this model has it"
    return UnknownNameError(
        f"There is no {at.hook_name} in this {anatomy.family}: in block {at.layer} {why}; {where}."
    )


def _name(at: Site | WritePoint) -> str:
    return at.kind if isinstance(at, Site) else at.point


def spans(layers: Iterable[int]) -> str:
    """Numbers of layers, neighbours folded: ``"0-2, 5"``."""

    def folded() -> Iterator[str]:
        for _, run in groupby(enumerate(sorted(layers)), key=lambda pair: pair[1] - pair[0]):
            group = [layer for _, layer in run]
            yield str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}"

    return ", ".join(folded())


def about(part: BlockParts) -> str:
    """One line on what a block has: its level, its units, and why there are no more."""
    there: list[str] = []
    if part.n_heads:
        there.append(f"{part.n_heads} heads of {part.d_head}")
    if part.experts is not None:
        there.append(_experts(part.experts))
    elif part.down_proj is not None:
        there.append(f"{part.d_mlp} neurons")
    if not there:
        there += [_MEANING[name] for name in ("attn_adds", "mlp_adds") if getattr(part, name)]
    if not there:
        there.append("resid_pre, resid_post")
    reasons: dict[str, list[str]] = {}
    for name, meaning in _MEANING.items():
        if name in part.lacks and not (name == "down_proj" and part.experts is not None):
            reasons.setdefault(part.lacks[name], []).append(meaning)
    return "; ".join(
        [", ".join(there), *(f"no {', '.join(what)}: {why}" for why, what in reasons.items())]
    )


def _experts(mixture: Mixture) -> str:
    routed = mixture.experts
    shared = mixture.n_neurons - mixture.n_routed
    more = f" and {shared} neurons of shared ones" if shared else ""
    return f"{routed.n_experts} experts of {routed.d_expert} neurons{more}"


def levels(anatomy: Anatomy) -> list[tuple[str, str, str]]:
    """Layers, level and what there is, runs of equal layers folded into one row."""
    rows: dict[tuple[str, str], list[int]] = {}
    for part in anatomy.blocks:
        rows.setdefault((part.level, about(part)), []).append(part.layer)
    return [(spans(layers), level, what) for (level, what), layers in rows.items()]
