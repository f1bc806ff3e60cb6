"""The next token of every reply of a batch, each by its own settings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.models.generation.decoding import likeliest, sample
from affectlens.serving.local.generation import Token
from affectlens.serving.local.row import Row


class Chooser:
    """Chooses as `affectlens.models.generation.loop` does, row by row."""

    def __init__(self) -> None:
        # One buffer for all steps: fresh memory costs page faults.
        self._buffer = torch.empty(0, 0)

    def __call__(
        self, logits: Float[Tensor, "row vocab"], rows: Sequence[Row]
    ) -> list[Token | None]:
        """Next tokens.

        Args:
            logits: Of the next token of every row, in any float format.
            rows: Whose they are.

        Returns:
            A token per row; None where the logits are not finite.
        """
        scores = self._copied(logits)
        sound = scores.amax(-1).isfinite()
        for i, row in enumerate(rows):
            row.weigh(scores[i : i + 1])
        chosen = likeliest(scores)
        drawn = [i for i, row in enumerate(rows) if row.uniform is not None]
        if drawn:
            where = torch.tensor(drawn, device=scores.device)
            settings = [rows[i].asked.settings for i in drawn]

            def column(values: Sequence[float | None]) -> Tensor:
                return torch.tensor(values, dtype=torch.float32, device=scores.device)

            chosen[where] = sample(
                scores[where],
                column([rows[i].uniform for i in drawn]),
                column([one.temperature for one in settings])[:, None],
                column([one.top_p for one in settings])[:, None],
            )
        tokens, fine = torch.stack([chosen, sound.long()]).tolist()
        return [
            self._token(token, logits[i], row.asked.logprobs) if ok else None
            for i, (token, ok, row) in enumerate(zip(tokens, fine, rows, strict=True))
        ]

    def _copied(self, logits: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
        n, vocab = logits.shape
        if len(self._buffer) < n or self._buffer.shape[1] != vocab:
            self._buffer = torch.empty((n, vocab), dtype=torch.float32, device=logits.device)
        return self._buffer[:n].copy_(logits)

    @staticmethod
    def _token(token: int, logits: Float[Tensor, " vocab"], top: int | None) -> Token:
        if top is None:
            return Token(token)
        shares = logits.float().log_softmax(-1)
        values, ids = shares.topk(min(top, len(shares)))
        likely = zip(ids.tolist(), values.tolist(), strict=True)
        return Token(token, float(shares[token]), tuple(likely))
