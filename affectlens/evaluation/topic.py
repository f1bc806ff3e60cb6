"""Sentence embeddings, for whether a reply kept to the topic of its prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from affectlens.evaluation.judges.encoder import ENCODER, load_encoder
from affectlens.evaluation.judges.windows import encode, windows_of
from affectlens.models.batches import BatchLimits, cut, shortest_first
from affectlens.models.registry import pull

_BATCH = 64
_WINDOW = 128  # most tokens read at once


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
        """Embed texts, all of each; equal texts are embedded once."""
        distinct = [text for text in dict.fromkeys(texts) if text not in self._known]
        lengths = [len(text) for text in distinct]
        for rows in cut(shortest_first(lengths), lengths, BatchLimits(rows=_BATCH)):
            batch = [distinct[i] for i in rows]
            windows = windows_of(self.tokenizer, batch, _WINDOW)
            parts = encode(self.encoder, self.tokenizer, windows.ids).cpu()
            # A long text is the mean of its windows, each weighted by its tokens.
            whole = torch.zeros(len(batch), parts.shape[1])
            whole.index_add_(0, windows.owner, parts * windows.tokens[:, None])
            unit = torch.nn.functional.normalize(whole, dim=-1).numpy()
            self._known.update(zip(batch, unit, strict=True))
        return np.stack([self._known[text] for text in texts])
