"""EAP and EAP-IG: what every edge is worth, from the slopes at all receivers.

``score(u → v) = Σ_t <a_u - a'_u, ∂m/∂(what v reads)>``. Summed over receivers it is the sender's
score as a node; summed over senders it is what the receiver reads as a whole. Where a norm stands
between a sublayer and the stream, the slope goes through that norm as it is at that token.

*Corrected*, edges into attention run the attention on what it would read, and take the slope only
from its heads on: through a softmax that is saturated a slope is nothing although a change is not
(the QK correction of AtP*, here for all that an attention reads).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.edge_scores import AnyReceiver, EdgeScores, Sender
from affectlens.circuits.attribution.slopes import (
    Against,
    Asked,
    Compared,
    Slopes,
    integrated,
    slopes,
)
from affectlens.circuits.attribution.stand_ins import EMBEDDING
from affectlens.circuits.attribution.weights import float32_gradients
from affectlens.circuits.interventions.edges import order
from affectlens.circuits.interventions.head_receivers import TOGETHER, WAYS, HeadReceiver
from affectlens.circuits.interventions.receivers import (
    Reading,
    Receiver,
    reading_otherwise,
    receivers,
)
from affectlens.circuits.resuming import Recorded, record
from affectlens.core.artefact import Provenance
from affectlens.core.errors import DataError, unknown
from affectlens.core.places import WritePoint
from affectlens.core.progress import progress
from affectlens.models.anatomy.transformer_lens import unwrap
from affectlens.models.generation.listeners import refuse_listeners
from affectlens.models.hooking.hooks import writing

if TYPE_CHECKING:
    from affectlens.circuits.tasks import Task
    from affectlens.models.loading import LanguageModel

INTO: tuple[str, ...] = ("attention", "heads", "qkv")
"""Whole attentions, single heads, or the queries, keys and values of single heads."""

_OUT = {"head": "o_proj_out", "attn": "o_proj_out", "mlp": "down_proj_out"}


@dataclass(frozen=True)
class EdgeSettings:
    """How edges are scored.

    Attributes:
        steps: Points on the path from the other text's embedding to the text's own; 1: EAP.
        corrected: Run attention on what it would read; with one step only.
        into: Where edges into attention end: one of :data:`INTO`.
        max_tokens: Tokens at once where attention is run again.
    """

    steps: int = 1
    corrected: bool = False
    into: str = "attention"
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        if self.into not in INTO:
            raise unknown("end of edges", self.into, INTO)
        if self.corrected and self.into == "qkv":
            raise DataError(
                "What an attention would make of a change is known of whole heads; take "
                "into='heads', or leave the correction out."
            )
        if self.steps < 1:
            raise DataError(f"A path has one step or more, not {self.steps}.")
        if self.corrected and self.steps > 1:
            raise DataError("Attention is corrected at the text as it is: take steps=1.")

    @property
    def method(self) -> str:
        """What tables call it."""
        if self.steps > 1:
            return f"EAP-IG (inputs, steps {self.steps})"
        return "EAP, attention corrected" if self.corrected else "EAP"


def edge_scores(
    model: LanguageModel,
    task: Task,
    against: Against,
    emotions: Sequence[str],
    settings: EdgeSettings = EdgeSettings(),
) -> EdgeScores:
    """Scores of all edges from the embedding, heads and MLPs to attentions, MLPs and unembedding.

    With ``into="heads"`` they end in single heads, whose sum is the attention; with ``"qkv"`` in
    what these read by queries, keys and values, whose sum is the head.

    Args:
        model: The model; gradients are taken in float32.
        task: Texts; of the emotions.
        against: Means (edges of the embedding are then NaN), or pairs of texts.
        emotions: Of the task.
        settings: Which slopes.

    Raises:
        DataError: If the model is steered, there is no text or pair, or a path is asked for without
            pairs.
        ModelError: If the stream of this family is more than the sum of what is written to it, or
            one map makes its queries, keys and values where these are asked for.

    Source: Syed et al., arXiv 2310.10348; Hanna et al., arXiv 2403.17806; AtP*, arXiv 2403.00745.
    """
    refuse_listeners(model.hf, "Edge attribution")
    if settings.steps > 1 and against.means is not None:
        raise DataError("A path over inputs runs from another text to its own; give pairs.")
    table = _Table.of(model, receivers(model), settings.into)
    values = torch.zeros(len(emotions), len(table.senders), len(table.ends))
    apart = settings.into == "attention" and not settings.corrected  # heads run again, whole
    with float32_gradients(model):
        for e, emotion in enumerate(emotions):
            count = len(against.texts(task, emotion))
            with progress(f"{settings.method}, {emotion}", count) as advance:
                for parts in against.compared(model, task, emotion, apart=apart):
                    for part in parts:
                        values[e] += table.scores(part, settings) / count
                    advance(1)
    values[:, ~table.forward] = torch.nan
    if against.means is not None:
        values[:, 0] = torch.nan
    return EdgeScores(
        method=settings.method,
        emotions=tuple(emotions),
        senders=table.senders,
        receivers=tuple(table.ends),
        values=values,
        provenance=Provenance(
            kind="edge_scores",
            model=model.fingerprint,
            model_name=model.name,
            corpus=task.fingerprint,
            parameters={
                **asdict(settings),
                "task": task.name,
                "against": "means" if against.means is not None else "pairs",
            },
        ),
    )


@dataclass(frozen=True, eq=False)
class _Table:
    """Senders and receivers of a model, and which edges run forward."""

    model: LanguageModel
    ends: Mapping[AnyReceiver, Reading]
    senders: tuple[Sender, ...]
    forward: Tensor

    @classmethod
    def of(cls, model: LanguageModel, readings: Mapping[Receiver, Reading], into: str) -> _Table:
        senders = [Sender(-1, "embedding")]
        for part in model.anatomy.blocks:
            if part.n_heads:
                senders += [Sender(part.layer, "head", head) for head in range(part.n_heads)]
            elif Receiver(part.layer, "attn") in readings:
                senders.append(Sender(part.layer, "attn"))
            if Receiver(part.layer, "mlp") in readings:
                senders.append(Sender(part.layer, "mlp"))
        ends: dict[AnyReceiver, Reading] = {}
        for receiver, reading in readings.items():
            at = receiver.layer
            heads = model.anatomy.blocks[at].n_heads if receiver.part == "attn" else 0
            ways = WAYS if into == "qkv" else (TOGETHER,)
            apart = [HeadReceiver(at, head, by) for head in range(heads) for by in ways]
            ends |= dict.fromkeys(apart if heads and into != "attention" else [receiver], reading)
        place = [order(model, _place(sender)) for sender in senders]
        reads = [order(model, _whole(end)) for end in ends]
        forward = torch.tensor([[at < end for end in reads] for at in place])
        return cls(model, ends, tuple(senders), forward)

    def scores(self, part: Compared, settings: EdgeSettings) -> Float[Tensor, "sender receiver"]:
        """Of one part of a text."""
        points = sorted({_place(s) for s in self.senders} | set(self._heads()), key=str)
        asked = Asked(
            at=points,
            receivers={end: at for end, at in self.ends.items() if isinstance(end, Receiver)},
            heads={end: at for end, at in self.ends.items() if isinstance(end, HeadReceiver)},
        )
        if settings.steps > 1:
            found = integrated(self.model, part, asked, EMBEDDING, settings.steps)
        else:
            found = slopes(self.model, part.runs, asked)
        values, shape = found.values, found.values[EMBEDDING].shape
        # (OPT's MLPs read all tokens as rows.)
        read = torch.stack([found.reads[end].reshape(shape) for end in self.ends])
        scores = torch.zeros(self.forward.shape)
        for at, first, moved in self._moved(values, part):
            through = read if at == EMBEDDING else self._before_norm(at, values[at], read)
            products = moved.flatten(1) @ through.flatten(1).T
            scores[first : first + len(moved)] = products.cpu()
        scores[~self.forward] = 0.0
        if settings.corrected:
            self._correct(scores, part, values, found, settings.max_tokens)
        return scores

    def _heads(self) -> list[WritePoint]:
        layers = dict.fromkeys(s.layer for s in self.senders if s.part == "head")
        return [WritePoint(layer, "o_proj_in") for layer in layers]

    def _moved(
        self, values: Mapping[WritePoint, Tensor], part: Compared
    ) -> list[tuple[WritePoint, int, Float[Tensor, "sender row pos d_model"]]]:
        """By how much senders' outputs differ, before a norm: place, first sender, difference."""
        found = list[tuple[WritePoint, int, Tensor]]()
        for number, sender in enumerate(self.senders):
            at = _place(sender)
            if sender.part == "head":
                if sender.index == 0:
                    found.append((at, number, self._of_heads(sender.layer, values, part)))
            elif at in part.stands:
                found.append((at, number, (values[at] - part.stands[at].to(values[at]))[None]))
        return found

    def _of_heads(
        self, layer: int, values: Mapping[WritePoint, Tensor], part: Compared
    ) -> Float[Tensor, "head row pos d_model"]:
        at, block = WritePoint(layer, "o_proj_in"), self.model.anatomy.blocks[layer]
        z = values[at] - part.stands[at].to(values[at])
        apart = z.unflatten(-1, (block.n_heads, block.d_head))
        return torch.einsum("bphd,hdm->hbpm", apart, block.W_O().to(z.device))

    def _before_norm(
        self, at: WritePoint, value: Tensor, read: Float[Tensor, "receiver row pos d_model"]
    ) -> Float[Tensor, "receiver row pos d_model"]:
        """Slopes in what a sublayer gives, from slopes in the stream."""
        block = self.model.anatomy.blocks[at.layer]
        attn = at.point == "o_proj_out"
        norm = block.attn_post_norm if attn else block.mlp_post_norm
        scale = block.attn_scale if attn else block.mlp_scale
        if norm is None:
            return read * scale
        with torch.enable_grad():
            leaf = value.detach().requires_grad_()
            normed = unwrap(norm).forward(leaf) * scale
            each = [
                torch.autograd.grad(normed, leaf, slope, retain_graph=True)[0] for slope in read
            ]
        return torch.stack(each)

    def _correct(
        self,
        scores: Float[Tensor, "sender receiver"],
        part: Compared,
        values: Mapping[WritePoint, Tensor],
        found: Slopes,
        max_tokens: int,
    ) -> None:
        """Put in what attention makes of each change, to first order only from its heads on."""
        kept = record(self.model, part.runs)
        sent = torch.zeros(len(self.senders), *values[EMBEDDING].shape)
        for at, first, moved in self._moved(values, part):
            sent[first : first + len(moved)] = self._arriving(at, values[at], moved).cpu()
        most = max(1, max_tokens // part.runs.tokens)
        most = most if part.runs.most is None else min(most, part.runs.most)
        ends = list(self.ends)
        for receiver in dict.fromkeys(map(_whole, ends)):
            at = WritePoint(receiver.layer, "o_proj_in")
            if receiver.part != "attn" or at not in values:
                continue
            columns = [v for v, end in enumerate(ends) if _whole(end) == receiver]
            slope, n_heads = found.slopes[at], self.model.anatomy.blocks[receiver.layer].n_heads
            for chunk in self.forward[:, columns[0]].nonzero().flatten().split(most):
                z = self._attended(kept, receiver, sent[chunk])
                change = (values[at] - z.unflatten(0, (len(chunk), -1))) * slope
                by_head = change.unflatten(-1, (n_heads, -1)).sum((1, 2, 4)).cpu()
                own = by_head if len(columns) == n_heads > 1 else by_head.sum(1, keepdim=True)
                scores[chunk[:, None], torch.tensor(columns)] = own

    def _arriving(
        self, at: WritePoint, value: Tensor, moved: Float[Tensor, "sender row pos d_model"]
    ) -> Float[Tensor, "sender row pos d_model"]:
        """What differences before a norm are in the stream, exactly."""
        if at == EMBEDDING:
            return moved
        block = self.model.anatomy.blocks[at.layer]
        attn = at.point == "o_proj_out"
        norm = block.attn_post_norm if attn else block.mlp_post_norm
        if norm is not None:
            norm = unwrap(norm)
            moved = norm.forward(value) - norm.forward(value - moved)
        return moved * (block.attn_scale if attn else block.mlp_scale)

    @torch.no_grad()
    def _attended(
        self, kept: Recorded, receiver: Receiver, sent: Float[Tensor, "sender row pos d_model"]
    ) -> Float[Tensor, "sender_row pos width"]:
        """The heads of one attention when it reads the stream less what was sent, copy by copy."""
        caught: list[Tensor] = []

        def read(stream: Tensor) -> Tensor:
            return stream - sent.flatten(0, 1).to(stream)

        reading = next(at for end, at in self.ends.items() if _whole(end) == receiver)

        def catch(value: Tensor) -> None:
            caught.append(value.float())
            raise _Enough

        place = WritePoint(receiver.layer, "o_proj_in")
        try:
            with (
                kept.before(receiver.layer, len(sent)),
                reading_otherwise(self.model, {receiver: reading}, {receiver: read}),
                writing(self.model.anatomy, {place: catch}),
            ):
                kept.runs(len(sent))
        except _Enough:
            return caught[0]
        raise AssertionError("an attention with heads runs its output projection")


class _Enough(Exception):
    """Ends a pass once what was asked for is known."""


def _place(sender: Sender) -> WritePoint:
    """Where what a sender writes is seen, before a norm that may follow."""
    if sender.part == "embedding":
        return EMBEDDING
    return WritePoint(sender.layer, _OUT[sender.part])


def _whole(end: AnyReceiver) -> Receiver:
    """The attention of a head; what else reads is itself."""
    return Receiver(end.layer, "attn") if isinstance(end, HeadReceiver) else end
