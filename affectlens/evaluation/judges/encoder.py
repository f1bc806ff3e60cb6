"""The encoder judge: a small sentence encoder (MiniLM) with a low-rank adapter and a linear head.

It has read neither the texts that give directions nor the test texts of the authored corpora.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import ModelError
from affectlens.evaluation.judges.adapter import JudgeAdapter, merge
from affectlens.evaluation.judges.base import GARBLED, Verdicts
from affectlens.evaluation.judges.encoder_identity import encoder_fingerprint
from affectlens.evaluation.judges.windows import (
    Windows,
    encode,
    pooled_log_probabilities,
    windows_of,
)
from affectlens.models.batches import BatchLimits, cut, shortest_first
from affectlens.models.library_bars import no_library_bars

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
        with no_library_bars():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            encoder = AutoModel.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, attn_implementation="sdpa"
            )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} holds no sentence encoder ({error}); delete it and fetch it again."
        ) from error
    return encoder.eval(), tokenizer


class EncoderJudge:
    """Blind judge of single texts.

    Args:
        encoder: The plain encoder; its weights are changed in place.
        tokenizer: Its tokenizer.
        adapter: What turns it into a judge.
        batch_size: Windows per forward pass (sorted by length first).

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
        """Judge each text alone, all of it (see `reading`); one without a token is garbled."""
        windows = windows_of(self.tokenizer, texts, self.adapter.reading.window)
        said = pooled_log_probabilities(
            self._logits(windows), windows, self.labels, self.adapter.reading
        )
        probabilities = said.double().softmax(-1).numpy()
        if GARBLED in self.labels:
            empty = [
                row for row, ids in zip(windows.owner, windows.ids, strict=True) if len(ids) == 2
            ]
            probabilities[empty] = np.eye(len(self.labels))[self.labels.index(GARBLED)]
        return Verdicts.likeliest(self.labels, probabilities)

    @torch.inference_mode()
    def _logits(self, windows: Windows) -> Float[Tensor, "w k"]:
        """Scores of every window before the softmax, on the CPU."""
        lengths = [len(ids) for ids in windows.ids]
        weight, bias = self.adapter.head_weight, self.adapter.head_bias
        scores = torch.zeros(len(lengths), len(self.labels))
        for rows in cut(shortest_first(lengths), lengths, BatchLimits(rows=self.batch_size)):
            pooled = encode(self.encoder, self.tokenizer, [windows.ids[row] for row in rows])
            scores[rows] = pooled.cpu() @ weight.T + bias
        return scores


@lru_cache(maxsize=1)
def shipped_adapter() -> JudgeAdapter:
    """The adapter that comes with the package."""
    with as_file(files("affectlens.evaluation.judges").joinpath(ADAPTER_FILE)) as path:
        return JudgeAdapter.load(path)
