"""Sentence embeddings, for whether a reply kept to the topic of its prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from affectlens.evaluation.judges.encoder import ENCODER, encode, load_encoder
from affectlens.models.registry import pull

_BATCH = 64


class Embedder:
    """The plain MiniLM encoder, without the judge's adapter: unit vectors, one per text.

    It remembers what it has embedded: arms share their prompts and the replies they are held
    against.
    """

    def __init__(self) -> None:
        self.encoder, self.tokenizer = load_encoder(pull(ENCODER))
        self._known: dict[str, Float[np.ndarray, " d"]] = {}

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Embed texts; equal texts are embedded once."""
        distinct = [text for text in dict.fromkeys(texts) if text not in self._known]
        order = sorted(range(len(distinct)), key=lambda i: len(distinct[i]))
        for start in range(0, len(order), _BATCH):
            batch = [distinct[i] for i in order[start : start + _BATCH]]
            vectors = encode(self.encoder, self.tokenizer, batch, max_tokens=128)
            unit = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
            self._known.update(zip(batch, unit, strict=True))
        return np.stack([self._known[text] for text in texts])
