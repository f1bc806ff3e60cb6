"""Which module of a block plays which part, told from what the block did in one pass.

Nothing is told from names. What mixes tokens is found by changing the first token and looking at
the others; attention, and how many heads it has, by transformers calling its attention function;
the middle of the stream by who reads a sum that holds the mixers and no MLP yet; what is a linear
map by the self-check, which follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from affectlens.models.anatomy.anatomy import PARALLEL, BlockParts, Term
from affectlens.models.anatomy.mixing import Mixing
from affectlens.models.anatomy.sums import BlockCall, ModuleCall, Sum
from affectlens.models.anatomy.transformer_lens import unwrap
from affectlens.models.linear_map import shape_in_out
from affectlens.models.mixtures.mixture import Mixture, find_mixture

Role = Literal["mixer", "mlp", "carried"]
"""``carried``: the stream itself, perhaps after a norm."""


@dataclass(frozen=True, eq=False)
class _Added:
    """Something that a block adds to the stream.

    Attributes:
        module: Whose output is added.
        source: The sublayer behind it, if that is a norm; else the module itself.
        role: What it is.
    """

    module: nn.Module
    source: nn.Module
    role: Role

    @property
    def norm(self) -> nn.Module | None:
        """The norm between the sublayer and the stream, if there is one."""
        return None if self.module is self.source else self.module


def block_parts(layer: int, block: nn.Module, call: BlockCall, mixing: Mixing) -> BlockParts:
    """The parts of a block that has run once.

    Args:
        layer: Its index.
        block: The block.
        call: What it did, see `affectlens.models.anatomy.sums.following`.
        mixing: What is known of blocks before it.
    """
    if call.sum is None:
        return only_stream(layer, block, "its output is no plain sum of what its parts give")
    repeated = [module for module in call.sum if module and call.calls[module].times > 1]
    if repeated:
        return only_stream(layer, block, f"its {_named(repeated[0])} runs more than once")
    return _Roles(layer, block, call, call.sum, mixing).parts()


def only_stream(layer: int, block: nn.Module, why: str) -> BlockParts:
    """A block of which only what goes in and what comes out is known."""
    names = ("attn", "mlp", "o_proj", "down_proj", "mid_reader", "attn_adds", "mlp_adds")
    return BlockParts(layer, block, lacks=dict.fromkeys(names, why))


class _Roles:
    """Finds the parts of one block."""

    def __init__(
        self, layer: int, block: nn.Module, call: BlockCall, post: Sum, mixing: Mixing
    ) -> None:
        self.layer, self.block, self.call, self.post = layer, block, call, post
        self.mixing = mixing
        self.order = {module: i for i, module in enumerate(call.calls)}
        self.known: dict[nn.Module, _Added] = {}
        for one in call.calls.values():
            if one.depth == 0 and one.given is not None and len(one.given) > 1:
                for module in one.given:
                    if module is not None:
                        self.added(module)
        for module in post:
            if module is not None:
                self.added(module)
        self.mixers = self._of("mixer")
        self.mlps, self.later = self._split(self._of("mlp"))
        if not self.mlps:  # an MLP that looks at the token before, too (RWKV)
            self.mixers, self.mlps = self._split(self.mixers)
        self.lacks: dict[str, str] = {}

    def parts(self) -> BlockParts:
        """All that was found."""
        reader, mid = self._middle()
        before = self.post if mid is None else mid
        self.mixers = self._straight(self.mixers, before, "attn_adds", "o_proj")
        self.mlps = self._straight(self.mlps, self.post, "mlp_adds", "down_proj")
        first = self.mixers[0].module if self.mixers else None
        # What the whole block is multiplied by at its end (Gemma 4).
        end = self.post[first] / before[first] if first in self.post and first in before else 1.0
        attn_adds = _terms({one.module: before[one.module] for one in self.mixers})
        mlp_adds = _terms({one.module: self.post[one.module] / end for one in self.mlps})
        mixer = next((one for one in self.mixers if self._attention(one.source)), None)
        mixer = mixer or next(iter(self.mixers), None)
        mlp = next((one for one in self.mlps if _is_mixture(one.source)), None)
        mlp = mlp or next(iter(self.mlps), None)
        o_proj, n_heads = self._heads(mixer)
        down_proj = self._neurons(mlp)
        if mixer is None:
            for name in ("attn", "attn_adds", "o_proj"):
                self.lacks.setdefault(name, "nothing mixes tokens")
        if mlp is None:
            for name in ("mlp", "mlp_adds", "down_proj"):
                self.lacks.setdefault(name, "there is no MLP")
        return BlockParts(
            layer=self.layer,
            block=self.block,
            attn=None if mixer is None else mixer.source,
            mlp=None if mlp is None else mlp.source,
            o_proj=o_proj,
            down_proj=down_proj,
            attn_post_norm=None if mixer is None else mixer.norm,
            mlp_post_norm=None if mlp is None else mlp.norm,
            mid_reader=reader,
            attn_adds=attn_adds,
            mlp_adds=mlp_adds,
            attn_scale=self._scale(mixer, o_proj, attn_adds),
            mlp_scale=self._scale(mlp, down_proj, mlp_adds),
            mid_sum=() if mid is None else _terms(mid),
            post_sum=_terms(self.post),
            n_heads=n_heads,
            mixture=mlp is not None and _is_mixture(mlp.source),
            experts=self._experts(mlp, mlp_adds),
            lacks=self.lacks,
        )

    def added(self, module: nn.Module) -> _Added:
        """What an added module is."""
        if module not in self.known:
            self.known[module] = self._added(module)
        return self.known[module]

    def _added(self, module: nn.Module) -> _Added:
        call = self.call.calls[module]
        if _is_norm(module) and call.given is not None:
            if None in call.given:
                return _Added(module, module, "carried")
            behind = [self.added(x) for x in call.given if x is not None]
            roles = {one.role for one in behind}
            if len(roles) == 1:
                return _Added(module, behind[0].source, behind[0].role)
            if "carried" in roles:  # the stream is normed again after the mixer (MiniMax)
                return _Added(module, module, "carried")
        if self._attention(module) or self.mixing(module, call):
            return _Added(module, module, "mixer")
        return _Added(module, module, "mlp")

    def _of(self, role: Role) -> list[_Added]:
        """What is added in a role, in the order of the pass; a norm stands for what it norms."""
        normed = {one.source for one in self.known.values() if one.norm is not None}
        found = [
            one
            for one in self.known.values()
            if one.role == role and (one.norm is not None or one.source not in normed)
        ]
        return sorted(found, key=lambda one: self.order[one.module])

    def _split(self, found: list[_Added]) -> tuple[list[_Added], list[_Added]]:
        """Sublayers, and those that read the stream only after the first (Gemma 4's third term)."""
        if not found:
            return [], []
        first = found[0].module
        after = [
            self.order[module]
            for module, one in self.call.calls.items()
            if one.depth == 0 and first in (one.given or ()) and len(one.given or ()) > 1
        ]
        then = min(after, default=len(self.order))
        early = [one for one in found if self.order[one.source] < then]
        return early, [one for one in found if one not in early]

    def _straight(self, found: list[_Added], total: Sum, *names: str) -> list[_Added]:
        """Those that reach the stream as they are, not by way of a norm over the whole of it."""
        straight = [one for one in found if one.module in total]
        if found and not straight:
            why = f"what its {_named(found[0].source)} adds is normed together with the stream"
            self.lacks |= dict.fromkeys(names, why)
        return straight

    def _middle(self) -> tuple[nn.Module | None, Sum | None]:
        """Who reads the stream between mixers and MLPs, and what that is the sum of."""
        mixers = {one.module for one in self.mixers}
        others = {one.module for one in (*self.mlps, *self.later)}
        for module, one in self.call.calls.items():
            given = set(one.given or ())
            if one.depth == 0 and mixers and mixers < given and not others & given:
                return module, one.given
        self.lacks["mid_reader"] = (
            PARALLEL if self.mixers and self.mlps else "it has one sublayer, so no middle"
        )
        return None, None

    def _attention(self, module: nn.Module) -> nn.Module | None:
        """The attention in a module, if transformers ran exactly one there."""
        inside = [part for part in module.modules() if part in self.call.attended]
        return inside[0] if len(inside) == 1 else None

    def _heads(self, mixer: _Added | None) -> tuple[nn.Module | None, int]:
        """``W_O`` and the number of heads."""
        if mixer is None:
            return None, 0
        attention = self._attention(mixer.source)
        if attention is None:
            self.lacks["o_proj"] = f"its mixer ({_named(mixer.source)}) is no attention that shows"
            self.lacks["o_proj"] += " its heads"
            return None, 0
        n_heads, d_head = self.call.attended[attention]
        o_proj = self._projection(mixer.source)
        if o_proj is None or _width(self.call.calls[o_proj]) != n_heads * d_head:
            self.lacks["o_proj"] = (
                f"its attention ({_named(mixer.source)}) has no one linear map after its heads"
            )
            return None, 0
        return o_proj, n_heads

    def _neurons(self, mlp: _Added | None) -> nn.Module | None:
        """``W_down``."""
        if mlp is None:
            return None
        if _is_mixture(mlp.source):
            self.lacks["down_proj"] = f"its MLP ({_named(mlp.source)}) is a mixture of experts"
            return None
        down_proj = self._projection(mlp.source)
        if down_proj is None:
            self.lacks["down_proj"] = f"its MLP ({_named(mlp.source)}) does not end in a linear map"
        return down_proj

    def _experts(self, mlp: _Added | None, adds: tuple[Term, ...]) -> Mixture | None:
        """The parts of a mixture, with what is added beside it and multiplied alike."""
        if mlp is None or not _is_mixture(mlp.source):
            return None
        beside = [one.module for one in self.mlps if one.module is not mlp.module]
        alike = len({term.scale for term in adds}) == 1
        found = find_mixture(mlp.source, beside) if alike else None
        if found is None:
            self.lacks["experts"] = f"it is not known how {_named(mlp.source)} keeps its experts"
        return found

    def _projection(self, module: nn.Module) -> nn.Module | None:
        """The linear map whose output is the module's own, up to a factor."""
        if shape_in_out(unwrap(module)) is not None:
            return module
        made = self.call.calls[module].made
        if made is None or len(made) != 1:
            return None
        (last,) = made
        if last is None or self.call.calls[last].times > 1:
            return None
        return self._projection(last)

    def _scale(
        self, one: _Added | None, projection: nn.Module | None, terms: tuple[Term, ...]
    ) -> float:
        """The factor of a projection's output in what is added."""
        if one is None:
            return 1.0
        scale = next(term.scale for term in terms if term.module is one.module)
        module = one.source
        while projection is not None and module is not projection:
            ((module, factor),) = (self.call.calls[module].made or {}).items()
            assert module is not None
            scale *= factor
        return scale


def _terms(total: Any) -> tuple[Term, ...]:
    return tuple(Term(module, float(factor)) for module, factor in total.items())


def _named(module: nn.Module) -> str:
    return type(module).__name__


def _is_norm(module: nn.Module) -> bool:
    """Whether it holds no more than a gain and an offset."""
    if shape_in_out(module) is not None or any(True for _ in module.children()):
        return False
    return all(parameter.ndim <= 1 for parameter in module.parameters())


def _is_mixture(module: nn.Module) -> bool:
    """Whether it holds experts: one tensor of several matrices, or a list of like MLPs."""
    if any(parameter.ndim == 3 for parameter in module.parameters()):
        return True
    return any(isinstance(x, nn.ModuleList) and len(x) > 1 for x in module.modules())


def _width(call: ModuleCall) -> int:
    value: Any = call.args[0] if call.args else next(iter(call.kwargs.values()))
    return int(value.shape[-1])
