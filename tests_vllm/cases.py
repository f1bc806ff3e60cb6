"""What is asked of both sides: the package's Transformers path, and vLLM with the plug-in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "build" / "vllm"
"""Where `tests_vllm.reference` leaves models, packs and expectations."""

EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")

NEW = 12
"""Tokens of a reply."""

TINY_SPECS: Mapping[str, str | None] = {
    "plain": None,
    "none": "none",
    **{f"residual {e}": f"{e}=1;mode=residual" for e in EMOTIONS},
    **{f"circuit {e}": f"{e}=1.5;mode=circuit" for e in EMOTIONS},
    "negative": "anger=-1.2;mode=circuit;positions=all",
    "mixture": "anger=0.5,fear=-0.4,happiness=1",
    "mixture of circuits": "sadness=1,surprise=0.7;mode=circuit;positions=last_prompt+generated",
    "generated": "fear=1.2;positions=generated",
    "last prompt": "fear=1.2;positions=last_prompt+generated",
    "prompt": "fear=1.2;positions=prompt",
    "all": "fear=1.2;positions=all",
    "prompt of a circuit": "disgust=2;mode=circuit;positions=prompt",
    "natural": "anger=0.7;unit=natural",
    "rms": "anger=1.5;unit=rms",
    "raw": "anger=2;unit=raw;mode=circuit",
    "keeps the norm": "happiness=2;operator=add_keep_norm",
    "keeps the norm in a circuit": "sadness=2,fear=1;operator=add_keep_norm;mode=circuit",
    "projects out": "sadness=1;operator=project_out;positions=all",
    "projects half of two out": "anger=0.5,fear=1;operator=project_out;mode=circuit;positions=all",
    "clamps": "surprise=2;operator=clamp",
    "clamps three": "anger=1,happiness=-1,fear=0.5;operator=clamp;mode=circuit;positions=all",
    "gate above": "anger=2;gate=anger>0.15;positions=all",
    "gate below": "anger=2;gate=anger<0.15;positions=all",
    "gated circuit": "fear=2;mode=circuit;gate=happiness>0.1;positions=all",
    "gated clamp": "fear=2;operator=clamp;gate=disgust>0.15",
    "rises": "anger=2;schedule=rise:6",
    "falls in a circuit": "fear=2;mode=circuit;positions=all;schedule=fall:5",
    "a curve that keeps the norm": "happiness=2;operator=add_keep_norm;schedule=0:0.3,4:1,8:0",
    "clamps less and less": "surprise=2;operator=clamp;positions=all;schedule=0:0.8,9:0.1",
    "a gate and a curve": "anger=2;gate=anger>0.15;positions=all;schedule=0:0.5,6:1",
}
"""Name to spec; every name is a request of one mixed batch."""

MAPPED_SPECS: Mapping[str, str | None] = {
    "plain": None,
    **{f"map of {e}": f"{e}=1;mode=low_rank" for e in EMOTIONS},
    "maps together": "anger=0.5,fear=-0.4,happiness=1;mode=low_rank;positions=all",
    "gated map": "anger=2;mode=low_rank;gate=anger>0.15;positions=all",
    "directions beside maps": "anger=1;mode=residual",
    "clamps beside maps": "surprise=2;mode=residual;operator=clamp",
    "circuit beside maps": "sadness=1.5;mode=circuit",
    "map that rises": "fear=1;mode=low_rank;positions=all;schedule=0:0.4,5:1",
}
"""For a pack that has low-rank maps, too."""

REAL_SPECS: Mapping[str, str | None] = {
    "plain": None,
    **{f"residual {e}": f"{e}=1;mode=residual" for e in EMOTIONS},
    **{f"circuit {e}": f"{e}=1;mode=circuit" for e in EMOTIONS},
    "mixture": "anger=0.5,happiness=0.7;positions=all",
    "projects out": "sadness=1;operator=project_out;positions=all",
    "gate": "fear=1.5;gate=fear>0.2;positions=all",
}
"""The same for the default model."""


@dataclass(frozen=True)
class Case:
    """A request and what the Transformers path makes of it.

    Attributes:
        name: Of the spec.
        spec: None for a request that does not mention steering.
        prompt: Token ids.
        text: What the user says, where the prompt is a chat.
        tokens: Greedy reply.
        logprobs: Of its tokens.
        readings: Probabilities per token and probe layer.
        reply: Those of the whole reply, per layer.
    """

    name: str
    spec: str | None
    prompt: Sequence[int]
    text: str | None
    tokens: Sequence[int]
    logprobs: Sequence[float]
    readings: Sequence[Sequence[Sequence[float]]]
    reply: Sequence[Sequence[float]]

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Case:
        """From JSON."""
        return cls(**plain)
