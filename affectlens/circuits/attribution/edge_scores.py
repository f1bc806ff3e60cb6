"""Edges and what each is worth: a table of senders by receivers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.scores import with_gaps, without_gaps
from affectlens.circuits.interventions.head_receivers import HeadReceiver
from affectlens.circuits.interventions.receivers import Receiver
from affectlens.core.artefact import Provenance, read_tensors, write_tensors
from affectlens.core.display import Displayed
from affectlens.core.emotions import emotion_name
from affectlens.core.errors import ArtefactError

AnyReceiver = Receiver | HeadReceiver


@dataclass(frozen=True, order=True)
class Sender:
    """What writes to the stream.

    Attributes:
        layer: Its block; -1 for the embedding.
        part: ``embedding``, ``head``, ``attn`` (an attention without heads) or ``mlp``.
        index: Of a head; 0 otherwise.
    """

    layer: int
    part: str
    index: int = 0

    @property
    def name(self) -> str:
        """For example ``head 3.7``, ``mlp 3``, ``embedding``."""
        if self.part == "embedding":
            return self.part
        return f"{self.part} {self.layer}" + (f".{self.index}" if self.part == "head" else "")


@dataclass(frozen=True)
class ScoredEdge:
    """One edge of one emotion."""

    emotion: str
    sender: Sender
    receiver: AnyReceiver
    score: float


@dataclass(frozen=True, eq=False, repr=False)
class EdgeScores(Displayed):
    """Expected fall of the margin if one receiver read another value of one sender.

    Attributes:
        method: For example ``"EAP"``.
        emotions: Order of the first axis.
        senders, receivers: Of the other two, in the order of the pass.
        values: In the task's unit; NaN where an edge would run backwards, or the sender has
            nothing to be held against.
        provenance: What made them.
    """

    method: str
    emotions: tuple[str, ...]
    senders: tuple[Sender, ...]
    receivers: tuple[AnyReceiver, ...]
    values: Float[Tensor, "emotion sender receiver"]
    provenance: Provenance

    def strongest(self, emotion: str, count: int) -> list[ScoredEdge]:
        """The edges of largest magnitude, the largest first.

        Raises:
            UnknownNameError: If there is no such emotion.
        """
        emotion = emotion_name(emotion, self.emotions)
        values = self.values[self.emotions.index(emotion)].nan_to_num()
        order = values.abs().flatten().argsort(descending=True, stable=True)[:count]
        found = list[ScoredEdge]()
        for place in order.tolist():
            u, v = divmod(place, len(self.receivers))
            if values[u, v]:
                edge = ScoredEdge(emotion, self.senders[u], self.receivers[v], float(values[u, v]))
                found.append(edge)
        return found

    def out_of(self) -> Float[Tensor, "emotion sender"]:
        """Sums over receivers: what each sender is worth as a node."""
        return self.values.nan_to_num().sum(2)

    def into(self) -> Float[Tensor, "emotion receiver"]:
        """Sums over senders: what all that a receiver reads is worth."""
        return self.values.nan_to_num().sum(1)

    def brief(self) -> dict[str, object]:
        """Method, emotions, senders, receivers, edges, model."""
        return {
            "method": self.method,
            "emotions": len(self.emotions),
            "senders": len(self.senders),
            "receivers": len(self.receivers),
            "edges": int((~self.values[0].isnan()).sum()),
            "model": self.provenance.model_name,
        }

    def table_rows(self, count: int = 50) -> list[dict[str, Any]]:
        """A row for each of the strongest edges of every emotion."""
        return [
            {
                "emotion": emotion,
                "sender": edge.sender.name,
                "receiver": edge.receiver.name,
                "score": edge.score,
            }
            for emotion in self.emotions
            for edge in self.strongest(emotion, count)
        ]

    def save(self, path: str | Path) -> None:
        """Write them to one file (safetensors with a JSON header).

        Raises:
            ArtefactError: If the file cannot be written.
        """
        facts = {
            "method": self.method,
            "emotions": list(self.emotions),
            "senders": [[s.layer, s.part, s.index] for s in self.senders],
            "receivers": [_row(receiver) for receiver in self.receivers],
        }
        write_tensors(Path(path), with_gaps({"values": self.values}), self.provenance, facts)

    @classmethod
    def load(cls, path: str | Path) -> EdgeScores:
        """Read what `save` wrote.

        Raises:
            ArtefactError: If the file is missing or damaged.
            MismatchError: If it is another kind of artefact.
        """
        file = read_tensors(Path(path), "edge_scores")
        try:
            senders = tuple(Sender(int(a), str(b), int(c)) for a, b, c in file.extra["senders"])
            receivers = tuple(_receiver(*row) for row in file.extra["receivers"])
            emotions = tuple(file.extra["emotions"])
            values = without_gaps(file.tensors)["values"]
            if values.shape != torch.Size((len(emotions), len(senders), len(receivers))):
                raise ValueError("the table is of another shape than its names")
            return cls(
                str(file.extra["method"]), emotions, senders, receivers, values, file.provenance
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{path} is damaged ({error}); measure it again.") from error


def _row(receiver: AnyReceiver) -> list[int | str]:
    if isinstance(receiver, HeadReceiver):
        return [receiver.layer, "head", receiver.head, receiver.by]
    return [receiver.layer, receiver.part]


def _receiver(layer: Any, part: Any, head: Any = None, by: Any = "") -> AnyReceiver:
    if head is None:
        return Receiver(int(layer), str(part))
    return HeadReceiver(int(layer), int(head), str(by))
