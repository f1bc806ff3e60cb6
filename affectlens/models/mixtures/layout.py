"""What is asked of a layout of experts: what they were given, what they did, where it goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from affectlens.models.mixtures.routing import Routing


@dataclass(frozen=True, eq=False)
class ExpertCall:
    """What the experts of a layer were called with in one pass.

    Attributes:
        hidden: What they read.
        routing: Which of them read which token, and what their outputs are multiplied by.
        weights: What the router gave each expert, 0 where it sends no token.
    """

    hidden: Float[Tensor, "token d_model"]
    routing: Routing
    weights: Float[Tensor, "token expert"]


class Experts(ABC):
    """The experts of one layer, whatever runs them: only inputs of modules are looked at."""

    n_experts: int
    d_expert: int

    @property
    @abstractmethod
    def module(self) -> nn.Module:
        """The module that holds the weights; with `loaded` of it what follows may be called."""

    @property
    @abstractmethod
    def source(self) -> nn.Module:
        """The module whose calls tell what the experts were given."""

    @abstractmethod
    def seen(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, /) -> ExpertCall:
        """What one call of `source` tells."""

    @abstractmethod
    def activations(self, call: ExpertCall, routing: Routing) -> Float[Tensor, "pair d_expert"]:
        """Neurons at the input of ``W_down``, before the gate, in the model's dtype.

        They are computed anew, as the kernels that run experts do not show them.

        Args:
            call: What the experts were given.
            routing: Of which pairs, some of the call's.
        """

    @abstractmethod
    def W_down(self, expert: int) -> Float[Tensor, "d_expert d_model"]:
        """Down projection of an expert, fp32."""

    @abstractmethod
    def b_down(self, expert: int, /) -> Float[Tensor, " d_model"] | None:
        """Its bias, fp32."""


@dataclass(frozen=True)
class ExpertLayout:
    """How a family keeps and calls its experts, as it stands in the table of all.

    Attributes:
        name: What it is called.
        help: What it is, in one line.
        find: Experts of a mixture's module; None if they are kept in another way.
    """

    name: str
    help: str
    find: Callable[[nn.Module], Experts | None]
