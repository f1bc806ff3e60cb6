"""Edges: only what one receiver reads of one sender changes, everything else goes on as it was.

A sender writes ``a`` to the stream and every later sublayer reads it. An edge intervention works
out what the sender would have written, ``a'``, leaves the stream alone, and lets one receiver read
``stream + a' - a``. What follows from that is computed as ever: path patching.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.interventions.base import Intervention
from affectlens.circuits.interventions.head_receivers import (
    TOGETHER,
    HeadReceiver,
    heads_reading_otherwise,
)
from affectlens.circuits.interventions.receivers import (
    Read,
    Reading,
    Receiver,
    reading_of,
    reading_otherwise,
    receivers,
)
from affectlens.core.errors import DataError
from affectlens.core.places import WritePoint
from affectlens.models.anatomy.transformer_lens import unwrap
from affectlens.models.hooking.hooks import Writer, writing

if TYPE_CHECKING:
    from affectlens.models.anatomy.anatomy import BlockParts
    from affectlens.models.loading import LanguageModel

_ATTN, _MLP = ("o_proj_in", "o_proj_out"), ("down_proj_in", "down_proj_out")


@dataclass(frozen=True, eq=False)
class Edge:
    """What one receiver reads of a sender.

    Attributes:
        sender: What the sender's values would be: heads (``o_proj_in`` and a mask), neurons
            (``down_proj_in``), a sublayer (``o_proj_out``, ``down_proj_out``), or the embedding
            (``resid_pre`` of block 0).
        receiver: Who reads the change.
        heads: Of an attention, the heads that read it; None: all.
        by: How these heads do: ``"q"``, ``"k"`` or ``"v"`` alone, or ``"qkv"``.
    """

    sender: Intervention
    receiver: Receiver
    heads: tuple[int, ...] | None = None
    by: str = TOGETHER


@contextmanager
def patching_edges(model: LanguageModel, edges: Sequence[Edge]) -> Generator[None, None, None]:
    """Change what receivers read of senders in every forward pass inside the block.

    Texts must run whole, without a cache. Several edges into one receiver add up.

    Raises:
        DataError: If there is no edge, one runs backwards, or the model has no such receiver.
        UnknownNameError: If the model has no such sender, or a receiver no such head.
        ModelError: If the stream of this family is more than the sum of what is written to it.
    """
    if not edges:
        raise DataError("There is no edge to patch; give at least one.")
    readings = receivers(model)
    for edge in edges:
        _require_forward(model, edge, readings)
    sent: dict[int, Tensor] = {}  # what each edge adds, by its number

    def writer(numbers: Sequence[int]) -> Writer:
        def look(value: Tensor) -> None:
            for number in numbers:
                sender = edges[number].sender
                sent[number] = _sent(model, sender.at, sender(value)) - _sent(
                    model, sender.at, value
                )

        return look

    def read(numbers: Sequence[int]) -> Read:
        def changed(stream: Float[Tensor, "batch pos d_model"]) -> Tensor:
            for number in numbers:
                stream = stream + sent[number].reshape(stream.shape).to(stream)
            return stream

        return changed

    senders: defaultdict[WritePoint, list[int]] = defaultdict(list)
    whole: defaultdict[Receiver, list[int]] = defaultdict(list)
    single: defaultdict[HeadReceiver, list[int]] = defaultdict(list)
    for number, edge in enumerate(edges):
        senders[edge.sender.at].append(number)
        if edge.heads is None:
            whole[edge.receiver].append(number)
        else:
            for head in edge.heads:
                single[HeadReceiver(edge.receiver.layer, head, edge.by)].append(number)
    both = sorted({Receiver(one.layer, "attn") for one in single} & set(whole))
    if both:
        raise DataError(
            f"Edges into {both[0].name} as a whole and into single heads of it cannot be told "
            "apart; name the heads of all of them."
        )
    with ExitStack() as stack:
        # The last hook sees what the others made of a value, so what is sent is told last.
        stack.enter_context(writing(model.anatomy, {at: writer(n) for at, n in senders.items()}))
        reads = {receiver: read(numbers) for receiver, numbers in whole.items()}
        stack.enter_context(reading_otherwise(model, readings, reads))
        if single:
            by_head = {place: read(numbers) for place, numbers in single.items()}
            stack.enter_context(heads_reading_otherwise(model, readings, by_head))
        yield


def order(model: LanguageModel, at: WritePoint | Receiver) -> tuple[int, int]:
    """Where something stands in the pass; it reads what stands before it, and is read after it.

    Sublayers of a parallel block stand side by side.

    Raises:
        DataError: If a place is no sender of edges.
    """
    if isinstance(at, Receiver):
        if at.part == "final":
            return model.n_layers, 0
        sublayer = at.part
    elif (at.layer, at.point) == (0, "resid_pre"):
        return -1, 0
    elif at.point in (*_ATTN, *_MLP):
        sublayer = "attn" if at.point in _ATTN else "mlp"
    else:
        raise DataError(
            f"{at.hook_name} is no sender of edges: what it holds was written by others; name a "
            "sublayer, heads, neurons, or resid_pre of block 0."
        )
    late = sublayer == "mlp" and model.anatomy.blocks[at.layer].mid_reader is not None
    return at.layer, int(late)


def _require_forward(model: LanguageModel, edge: Edge, readings: dict[Receiver, Reading]) -> None:
    reading_of(readings, edge.receiver)
    if order(model, edge.sender.at) >= order(model, edge.receiver):
        raise DataError(
            f"The edge from {edge.sender.at.hook_name} to {edge.receiver.name} runs backwards; its "
            "receiver must come after its sender."
        )
    if edge.heads is None and edge.by != TOGETHER:
        raise DataError("An edge by queries, keys or values alone names the heads that read by it.")
    if edge.heads is not None and (edge.receiver.part != "attn" or not edge.heads):
        raise DataError(
            f"An edge into heads ends in an attention and names at least one, not {edge.heads} of "
            f"{edge.receiver.name}."
        )


def _sent(
    model: LanguageModel, at: WritePoint, value: Tensor
) -> Float[Tensor, "batch pos d_model"]:
    """What reaches the stream of a sender's values, by the model's own modules."""
    if at.point == "resid_pre":
        return value
    part = model.anatomy.blocks[at.layer]
    attn = at.point in _ATTN
    if at.point in ("o_proj_in", "down_proj_in"):
        value = _projection(part, attn=attn)(value)
    norm = part.attn_post_norm if attn else part.mlp_post_norm
    value = value if norm is None else unwrap(norm).forward(value)
    return value * (part.attn_scale if attn else part.mlp_scale)


def _projection(part: BlockParts, *, attn: bool) -> Callable[[Tensor], Tensor]:
    module = part.o_proj if attn else part.down_proj
    assert module is not None  # its input was just written
    return unwrap(module).forward
