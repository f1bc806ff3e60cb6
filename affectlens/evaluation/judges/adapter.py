"""Low-rank adapter of a sentence encoder, with the head that reads it.

``W' = W + up @ down`` for every linear map of the encoder's blocks (Hu et al., arXiv 2106.09685).
Shipping the two thin factors instead of the encoder keeps the judge at a few per cent of its size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.core import ArtefactError, MismatchError, Provenance, fingerprint
from affectlens.core.artefact import read_tensors, write_tensors
from affectlens.evaluation.judges.windows import Reading

KIND = "judge adapter"


@dataclass(frozen=True)
class LowRankDelta:
    """Change of one weight matrix: ``up @ down``."""

    down: Float[Tensor, "rank d_in"]
    up: Float[Tensor, "d_out rank"]

    def dense(self) -> Float[Tensor, "d_out d_in"]:
        """The full change, in fp32."""
        return self.up.float() @ self.down.float()


@dataclass(frozen=True)
class JudgeAdapter:
    """All that turns the plain encoder into a judge.

    Attributes:
        deltas: Module name within the encoder -> change of its weight.
        head_weight: Reads the mean of the last hidden states.
        head_bias: Its bias.
        labels: Names of the ``k`` outputs.
        reading: How long texts are read.
        provenance: Data and settings it was fitted with; ``model`` is the `encoder_fingerprint`
            of the encoder it was fitted on.
        facts: What was measured on unseen texts.
    """

    deltas: Mapping[str, LowRankDelta]
    head_weight: Float[Tensor, "k d"]
    head_bias: Float[Tensor, " k"]
    labels: tuple[str, ...]
    reading: Reading
    provenance: Provenance
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of all that a verdict depends on, the encoder's included; equal once saved."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return fingerprint(digest.hexdigest(), self.labels, self.reading, self.provenance.model)

    def require_encoder(self, found: str) -> None:
        """Refuse an encoder other than the one this was fitted on.

        Args:
            found: The `encoder_fingerprint` of the encoder at hand.

        Raises:
            MismatchError: If it is another one, be it of the same shape.
        """
        if found != self.provenance.model:
            raise MismatchError(
                f"The judge adapter was fitted on another encoder ({self.provenance.model or '?'}) "
                f"than this one ({found}); use the plain encoder it was fitted on "
                f"({self.provenance.model_name or '?'}), or fit the judge again."
            )

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {"head.weight": self.head_weight, "head.bias": self.head_bias}
        for name, delta in self.deltas.items():
            tensors[f"{name}.down"] = delta.down.half()
            tensors[f"{name}.up"] = delta.up.half()
        return tensors

    def save(self, path: Path) -> None:
        """Write one safetensors file; the factors in half precision."""
        extra = {
            "labels": self.labels,
            "reading": asdict(self.reading),
            "facts": dict(self.facts),
        }
        write_tensors(path, self._tensors(), self.provenance, extra)

    @classmethod
    def load(cls, path: Path) -> JudgeAdapter:
        """Read a file of `save`.

        Raises:
            ArtefactError: If the file is missing, cut short, damaged, or lacks a tensor.
            MismatchError: If it is another kind of artefact.
        """
        file = read_tensors(path, kind=KIND)
        try:
            names = sorted(n.removesuffix(".down") for n in file.tensors if n.endswith(".down"))
            return cls(
                deltas={
                    name: LowRankDelta(file.tensors[f"{name}.down"], file.tensors[f"{name}.up"])
                    for name in names
                },
                head_weight=file.tensors["head.weight"].float(),
                head_bias=file.tensors["head.bias"].float(),
                labels=tuple(file.extra["labels"]),
                reading=Reading(**file.extra["reading"]),
                provenance=file.provenance,
                facts=file.extra.get("facts", {}),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"{path} lacks {error}, so it is no complete judge adapter; fit the judge again."
            ) from error


class LowRankLinear(nn.Module):
    """A frozen linear map with a trainable low-rank change beside it (unmerged form)."""

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        scale = frozen.in_features**-0.5
        self.down = nn.Parameter(torch.randn(rank, frozen.in_features) * scale)
        self.up = nn.Parameter(torch.zeros(frozen.out_features, rank))  # starts as no change

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """``W x + b + up (down x)``."""
        return self.frozen(x) + (x @ self.down.T) @ self.up.T

    def delta(self) -> LowRankDelta:
        """The change alone, detached."""
        return LowRankDelta(self.down.detach().clone(), self.up.detach().clone())


def adapted_linears(encoder: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The linear maps that get a delta: those of the transformer blocks."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Linear) and name.startswith("encoder."):
            yield name, module


def insert_low_rank(encoder: nn.Module, rank: int) -> dict[str, LowRankLinear]:
    """Replace every adapted linear map by its unmerged low-rank form, in place."""
    inserted: dict[str, LowRankLinear] = {}
    for name, linear in list(adapted_linears(encoder)):
        parent, _, attribute = name.rpartition(".")
        inserted[name] = LowRankLinear(linear, rank)
        setattr(encoder.get_submodule(parent), attribute, inserted[name])
    return inserted


@torch.no_grad()
def merge(encoder: nn.Module, deltas: Mapping[str, LowRankDelta]) -> None:
    """Add the changes to the encoder's weights, in place: no cost at inference.

    Raises:
        MismatchError: If a module does not exist or has another shape.
    """
    linears = dict(adapted_linears(encoder))
    for name, delta in deltas.items():
        linear = linears.get(name)
        change = delta.dense()
        if linear is None or linear.weight.shape != change.shape:
            raise MismatchError(
                f"The judge adapter changes {name} {tuple(change.shape)}, which this encoder does "
                "not have; use the encoder it was fitted on."
            )
        linear.weight.add_(change.to(linear.weight))
