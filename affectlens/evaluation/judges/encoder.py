"""The encoder judge: a small sentence encoder (MiniLM) with a low-rank adapter and a linear head.

It has read neither the texts that give directions nor the test texts of the authored corpora.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import ModelError
from affectlens.evaluation.judges.adapter import JudgeAdapter, merge
from affectlens.evaluation.judges.base import Verdicts
from affectlens.evaluation.judges.binding import encoder_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ENCODER = "minilm"
ADAPTER_FILE = "adapter.safetensors"


def load_encoder(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read the plain encoder in fp32, in evaluation mode.

    Raises:
        ModelError: If the folder does not hold one.
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        encoder = AutoModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, attn_implementation="sdpa"
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} holds no sentence encoder ({error}); delete it and fetch it again."
        ) from error
    return encoder.eval(), tokenizer


def mean_pooled(
    hidden: Float[Tensor, "b t d"], mask: Float[Tensor, "b t"] | Tensor
) -> Float[Tensor, "b d"]:
    """Mean over the tokens that are not padding."""
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def encode(
    encoder: Any, tokenizer: Any, texts: Sequence[str], max_tokens: int
) -> Float[Tensor, "b d"]:
    """Mean last hidden state of each text."""
    batch = tokenizer(
        list(texts), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
    )
    hidden = encoder(**batch.to(encoder.device)).last_hidden_state
    return mean_pooled(hidden.float(), batch["attention_mask"])


class EncoderJudge:
    """Blind judge of single texts.

    Args:
        encoder: The plain encoder; its weights are changed in place.
        tokenizer: Its tokenizer.
        adapter: What turns it into a judge.
        batch_size: Texts per forward pass (sorted by length first).

    Raises:
        MismatchError: If the adapter was fitted on another encoder, or one is merged already.
    """

    name = "encoder"

    def __init__(
        self,
        encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        adapter: JudgeAdapter,
        *,
        batch_size: int = 64,
    ) -> None:
        adapter.require_encoder(encoder_fingerprint(encoder, tokenizer))
        merge(encoder, adapter.deltas)
        self.encoder = encoder.eval()
        self.tokenizer = tokenizer
        self.adapter = adapter
        self.batch_size = batch_size
        self.labels = adapter.labels
        self.fingerprint = adapter.fingerprint

    @classmethod
    def load(cls, adapter: Path | None = None, encoder: Path | None = None) -> EncoderJudge:
        """Load the judge that comes with the package.

        Args:
            adapter: Another adapter file, for example of `affectlens.evaluation.judges.training`.
            encoder: Folder of the plain encoder; by default fetched once into the cache.

        Raises:
            ArtefactError: If the adapter is missing or cut short.
            MismatchError: If the adapter was fitted on another encoder.
            ModelError: If the encoder cannot be fetched or read.
        """
        from affectlens.models.registry import pull

        # The adapter first: it is at hand, and a bad one should not cost a download.
        loaded = JudgeAdapter.load(adapter) if adapter else shipped_adapter()
        return cls(*load_encoder(encoder or pull(ENCODER)), loaded)

    def __call__(self, texts: Sequence[str]) -> Verdicts:
        """Judge each text alone; an empty text is garbled."""
        logits = self.logits([text if text.strip() else "-" for text in texts])
        probabilities = logits.softmax(-1).double().numpy()
        for row, text in enumerate(texts):
            if not text.strip() and "garbled" in self.labels:
                probabilities[row] = np.eye(len(self.labels))[self.labels.index("garbled")]
        chosen = tuple(self.labels[int(best)] for best in probabilities.argmax(1))
        return Verdicts(self.labels, chosen, probabilities)

    @torch.inference_mode()
    def logits(self, texts: Sequence[str]) -> Float[Tensor, "n k"]:
        """Scores before the softmax, on the CPU, in the order of ``texts``."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        weight, bias = self.adapter.head_weight, self.adapter.head_bias
        scores = torch.zeros(len(texts), len(self.labels))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            pooled = encode(
                self.encoder,
                self.tokenizer,
                [texts[row] for row in rows],
                self.adapter.max_tokens,
            )
            scores[rows] = pooled.cpu() @ weight.T + bias
        return scores


@lru_cache(maxsize=1)
def shipped_adapter() -> JudgeAdapter:
    """The adapter that comes with the package."""
    with as_file(files("affectlens.evaluation.judges").joinpath(ADAPTER_FILE)) as path:
        return JudgeAdapter.load(path)
