"""Steering by a classifier's gradient (K-Steering: Oozeer et al., arXiv 2505.24535).

A classifier with one hidden layer tells emotions apart after each steered block. A request is a
loss of what it says of a hidden state, signed, of several emotions at once, and a token takes one
step down that loss::

    h' = h − η ∇_h L(h),   L(h) = − Σ_e s_e log p(e | h)

so a step depends on where the hidden state is: it fades where an emotion is sure already, and two
emotions share what neither is alone. ``η`` is such that at strength 1 a step is as long as a
natural dose is, on average. Gradients are written out: hooks run where autograd is off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.core import DataError
from affectlens.steering.doses import doses_of

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack
    from affectlens.steering.spec import SteeringSpec

GRADIENT = "gradient"
"""The mode of packs that steers by a classifier."""
CLASSIFIER = "classifier"
"""Beginning of the names of its tensors in a file."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """Classifiers of a pack's emotions, one after each steered block, of raw hidden states.

    Attributes:
        inner: First layer, followed by ReLU.
        inner_bias: Its intercepts.
        outer: Second layer, followed by a softmax over the emotions.
        outer_bias: Its intercepts.
        step: ``η``.
    """

    inner: Float[Tensor, "layer hidden d_model"]
    inner_bias: Float[Tensor, "layer hidden"]
    outer: Float[Tensor, "layer emotion hidden"]
    outer_bias: Float[Tensor, "layer emotion"]
    step: Float[Tensor, " layer"]

    def __post_init__(self) -> None:
        for part in fields(self):
            object.__setattr__(self, part.name, getattr(self, part.name).detach().float())

    def parts(self) -> dict[str, Tensor]:
        """Its tensors by name, on the CPU."""
        return {part.name: getattr(self, part.name).cpu() for part in fields(self)}

    def check(self, emotions: int, layers: int, d_model: int) -> None:
        """Hold it against the pack it is in.

        Raises:
            DataError: Naming what does not fit.
        """
        width = max(1, self.inner.shape[1]) if self.inner.ndim == 3 else 1
        wanted = {
            "inner": (layers, width, d_model),
            "inner_bias": (layers, width),
            "outer": (layers, emotions, width),
            "outer_bias": (layers, emotions),
            "step": (layers,),
        }
        for name, tensor in self.parts().items():
            if tuple(tensor.shape) != wanted[name]:
                raise DataError(
                    f"{name} of the pack's classifier has shape {list(tensor.shape)}, not "
                    f"{list(wanted[name])}."
                )
            if not bool(tensor.isfinite().all()):
                raise DataError(f"{name} of the pack's classifier holds NaN or infinity.")
        if emotions < 2:
            raise DataError("A classifier tells emotions apart; give the pack two or more.")

    def at(self, layer: int) -> Classifier:
        """That of one entry of the pack's ``layers``."""
        return Classifier(*(getattr(self, part.name)[layer : layer + 1] for part in fields(self)))

    def logits(
        self, hidden: Float[Tensor, "*batch d_model"], layer: int = 0
    ) -> Float[Tensor, "*batch emotion"]:
        """What a classifier says of hidden states, before the softmax."""
        found = (hidden @ self.inner[layer].T + self.inner_bias[layer]).relu()
        return found @ self.outer[layer].T + self.outer_bias[layer]

    def ascent(
        self,
        hidden: Float[Tensor, "*batch d_model"],
        weights: Float[Tensor, "*batch emotion"],
        layer: int = 0,
    ) -> Float[Tensor, "*batch d_model"]:
        """``Σ_e w_e ∇_h log p(e | h)``.

        Args:
            hidden: Float32.
            weights: Signed, of each emotion.
            layer: Which entry of the pack's ``layers``.
        """
        before = hidden @ self.inner[layer].T + self.inner_bias[layer]
        said = (before.relu() @ self.outer[layer].T + self.outer_bias[layer]).softmax(-1)
        slopes = weights - weights.sum(-1, keepdim=True) * said  # at the logits
        return ((slopes @ self.outer[layer]) * (before > 0)) @ self.inner[layer]

    def to(self, device: torch.device | str) -> Classifier:
        """The same on another device."""
        return Classifier(*(getattr(self, part.name).to(device) for part in fields(self)))


@dataclass(frozen=True, eq=False)
class Steps:
    """What requests do at one place. Rows that do not act there do nothing.

    Attributes:
        classifier: Of that place alone.
        weights: Strength times ``η``; zero for rows that do not act.
    """

    classifier: Classifier
    weights: Float[Tensor, "row emotion"]

    def apply(
        self,
        hidden: Float[Tensor, "batch pos d"],
        rows: Int[Tensor, " batch"],
        on: Bool[Tensor, "batch pos"] | None,
    ) -> Float[Tensor, "batch pos d"]:
        """One step of each token; see `affectlens.steering.operators.affine.Affine.apply`."""
        weights = self.weights[rows][:, None]
        acts = (weights != 0).any(-1).expand(hidden.shape[:2])
        plain = hidden.float()
        moved = plain + self.classifier.ascent(plain, weights)
        acting = acts if on is None else on & acts
        return torch.where(acting[..., None], moved.to(hidden.dtype), hidden)

    def to(self, device: torch.device | str) -> Steps:
        """The same on another device."""
        return replace(self, classifier=self.classifier.to(device), weights=self.weights.to(device))


def step_weights(
    pack: SteeringPack, spec: SteeringSpec, name: str, index: int
) -> Float[Tensor, " emotion"] | None:
    """How a request of `SteeringPack.resolve` weighs emotions at one place; None if not at all.

    Args:
        pack: The pack; an emotion whose vector is zero at a place is not steered there.
        spec: The request.
        name: Of the vectors, ``gradient.<point>``.
        index: Which entry of the pack's ``layers``.
    """
    assert pack.classifier is not None
    chosen = [pack.emotions.index(emotion) for emotion in spec.weights]
    acts = (pack.vectors[name][chosen, index] != 0).any(-1)
    if not bool(acts.any()):
        return None
    strengths = doses_of(pack, spec, [pack.layers[name][index]], torch.float32).strengths.float()
    weights = torch.zeros(len(pack.emotions))
    weights[chosen] = strengths * acts * pack.classifier.step[index]
    return weights


def stepping(
    pack: SteeringPack, index: int, found: Mapping[int, Float[Tensor, " emotion"]], rows: int
) -> Steps:
    """Stack what requests do at one place.

    Args:
        pack: The pack.
        index: Which entry of its ``layers``.
        found: Row of the table to its weights.
        rows: Of the table.
    """
    assert pack.classifier is not None
    weights = torch.zeros(rows, len(pack.emotions))
    for row, one in found.items():
        weights[row] = one
    return Steps(pack.classifier.at(index), weights)


def mean_steps(
    classifier: Classifier, means: Float[Tensor, "layer d_model"]
) -> Float[Tensor, "emotion layer d_model"]:
    """The step of each emotion at strength 1 from the mean hidden state."""
    eye = torch.eye(classifier.outer.shape[1])
    steps: Sequence[Tensor] = [
        classifier.step[i] * classifier.ascent(mean.expand(len(eye), -1), eye, i)
        for i, mean in enumerate(means)
    ]
    return torch.stack(list(steps), 1)
