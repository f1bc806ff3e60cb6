"""A reply that is being written: its tokens, its text, and what is said of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.models.generation.decoding import penalise_repetition
from affectlens.serving.local.generation import Failed, Generation, Piece, Push, Token
from affectlens.serving.local.text_pieces import TextPieces
from affectlens.serving.reply_readings import Scores

logger = logging.getLogger(__name__)


class Row:
    """One reply.

    Attributes:
        name: Of this reply, unlike any other's.
        asked: What is wanted.
        reply: Tokens so far, the one that ended it included.
        over: Whether nothing more will be said of it.
        cancelled: Set from any thread by those who no longer want it.

    Args:
        name: See above.
        asked: See above.
        push: Takes what is to be said.
        decode: Text of token ids.
        eos: Tokens that end a reply.
    """

    def __init__(
        self,
        name: str,
        asked: Generation,
        push: Push,
        decode: Callable[[Sequence[int]], str],
        eos: Sequence[int],
    ) -> None:
        self.name, self.asked = name, asked
        self.reply: list[int] = []
        self.over = self.cancelled = False
        self._push, self._eos = push, tuple(eos)
        self._text = TextPieces(decode, asked.stop, asked.settings.min_new_tokens)
        settings, prompt = asked.settings, asked.prompt
        self._noise: list[float] | None = None
        if settings.temperature > 0:  # the numbers that `generate` draws with for this seed
            generator = torch.Generator().manual_seed(settings.seed)
            self._noise = torch.rand(settings.max_new_tokens, generator=generator).tolist()
        self._seen = torch.zeros(asked.longest, dtype=torch.long)
        self._seen[: len(prompt)] = torch.tensor(prompt)

    @property
    def length(self) -> int:
        """Tokens of prompt and reply so far."""
        return len(self.asked.prompt) + len(self.reply)

    @property
    def uniform(self) -> float | None:
        """What the next token is drawn with; None if it is the likeliest."""
        return None if self._noise is None else self._noise[len(self.reply)]

    def weigh(self, scores: Float[Tensor, "1 vocab"]) -> None:
        """Change the logits of the next token as the request asks, in place."""
        settings = self.asked.settings
        if settings.repetition_penalty != 1:
            seen = self._seen[: self.length].to(scores.device)[None]
            penalise_repetition(scores, seen, settings.repetition_penalty)
        if self._eos and (self.asked.ignore_eos or len(self.reply) < settings.min_new_tokens):
            scores[:, list(self._eos)] = -torch.inf

    def accept(self, token: Token, scores: Scores | None) -> None:
        """Take the next token, and say what it brings."""
        self._seen[self.length] = token.id
        self.reply.append(token.id)
        text = finish = ""
        if token.id in self._eos:
            finish = "stop"
        else:
            text = self._text.add(token.id)
            if self._text.stopped:
                finish = "stop"
            elif len(self.reply) == self.asked.settings.max_new_tokens:
                finish = "length"
        if finish:
            text += self._text.end()
            finish = "stop" if self._text.stopped else finish
        self.over = bool(finish)
        self._say(Piece(text, token, scores, finish or None))

    def fail(self, error: Exception) -> None:
        """Say that it cannot be finished."""
        if not self.over:
            self.over = True
            self._say(Failed(error))

    def _say(self, event: Piece | Failed) -> None:
        try:
            self._push(event)
        except Exception:  # whoever listened is gone; the others must not notice
            logger.debug("Nobody listens to %s any more.", self.name, exc_info=True)
            self.over = True
