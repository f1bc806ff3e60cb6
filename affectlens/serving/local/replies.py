"""Replies as OpenAI's JSON: whole, and chunk by chunk."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from affectlens.serving.contract import KEY
from affectlens.serving.local.generation import Generation, Piece, Token
from affectlens.serving.reply_readings import Reply

LOWEST = -9999.0
"""Stands for the logarithm of zero, which JSON cannot write."""

TokenText = Callable[[int], str]
Ids = tuple[int, ...]


@dataclass
class Usage:
    """Tokens of a request.

    Attributes:
        prompt: Of all prompts; one that is continued several times counts once.
        reply: Of all replies so far, tokens that end one included.
    """

    prompt: int
    reply: int = 0

    def to_dict(self) -> dict[str, int]:
        """OpenAI's form."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.reply,
            "total_tokens": self.prompt + self.reply,
        }


@dataclass(frozen=True)
class Shape:
    """How one of the two routes writes its replies.

    Attributes:
        prefix: Of ids.
        whole, part: Values of ``object``.
        chat: Whether it is the route of chats.
        text: How a token is written.
        model: Name of the model.
        id: Of the reply.
        created: Seconds since 1970.
        prompts: Tokens of the prompt of each reply; empty if nobody asked for token ids.
    """

    prefix: str
    whole: str
    part: str
    chat: bool
    text: TokenText
    model: str
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))
    prompts: Sequence[Ids] = ()

    @classmethod
    def of_chat(cls, text: TokenText, model: str) -> Shape:
        """``/v1/chat/completions``."""
        return cls("chatcmpl-", "chat.completion", "chat.completion.chunk", True, text, model)

    @classmethod
    def of_completion(cls, text: TokenText, model: str) -> Shape:
        """``/v1/completions``."""
        return cls("cmpl-", "text_completion", "text_completion", False, text, model)

    def reply(self, choices: Sequence[Any], usage: Usage) -> dict[str, Any]:
        """A whole reply."""
        head = {**self._head(self.whole), **self.chat_prompt()}
        return {**head, "choices": list(choices), "usage": usage.to_dict()}

    def chunk(self, choices: Sequence[Any], **more: Any) -> dict[str, Any]:
        """A part of one."""
        return {**self._head(self.part), "choices": list(choices), **more}

    def chat_prompt(self) -> dict[str, Any]:
        """Tokens of a chat's prompt beside its choices, where vLLM has them."""
        return {"prompt_token_ids": list(self.prompts[0])} if self.chat and self.prompts else {}

    def _ids(self, index: int, pieces: Sequence[Piece], *, first: bool) -> dict[str, Any]:
        if not self.prompts:
            return {}
        prompt = {"prompt_token_ids": list(self.prompts[index])} if first and not self.chat else {}
        return {**prompt, "token_ids": [piece.token.id for piece in pieces]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.prefix + self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
        }

    def choice(self, index: int, pieces: Sequence[Piece], logprobs: Any) -> dict[str, Any]:
        """A reply, whole."""
        text = "".join(piece.text for piece in pieces)
        said = (
            {"message": {"role": "assistant", "content": text, "refusal": None}}
            if self.chat
            else {"text": text}
        )
        ids = self._ids(index, pieces, first=True)
        finish = pieces[-1].finish
        return {"index": index, **said, "logprobs": logprobs, "finish_reason": finish, **ids}

    def opening(self, index: int) -> dict[str, Any]:
        """The first chunk of a chat's reply."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(
        self, index: int, pieces: Sequence[Piece], logprobs: Any, *, first: bool
    ) -> dict[str, Any]:
        """What is new of a reply; ``first`` if it is the first of it."""
        text = "".join(piece.text for piece in pieces)
        said = {"delta": {"content": text}} if self.chat else {"text": text}
        ids = self._ids(index, pieces, first=first)
        finish = pieces[-1].finish
        return {"index": index, **said, "logprobs": logprobs, "finish_reason": finish, **ids}

    def logprobs(self, tokens: Sequence[Token], offset: int = 0) -> Any:
        """Probabilities of tokens; None if nobody asked.

        Args:
            tokens: In order.
            offset: Of the first of them in the text, in characters.
        """
        if not tokens or tokens[0].logprob is None:
            return None
        if self.chat:
            return {"content": [self._of_chat(token) for token in tokens], "refusal": None}
        texts = [self.text(token.id) for token in tokens]
        ends = [offset]
        for text in texts:
            ends.append(ends[-1] + len(text))
        return {
            "tokens": texts,
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [
                {self.text(other): _finite(value) for other, value in token.top} or None
                for token in tokens
            ],
            "text_offset": ends[:-1],
        }

    def _of_chat(self, token: Token) -> dict[str, Any]:
        def one(number: int, value: float | None) -> dict[str, Any]:
            text = self.text(number)
            return {"token": text, "logprob": _finite(value), "bytes": list(text.encode())}

        top = [one(number, value) for number, value in token.top]
        return {**one(token.id, token.logprob), "top_logprobs": top}


def _finite(value: float | None) -> float:
    return LOWEST if value is None else max(value, LOWEST)


class Progress:
    """What has been heard of one reply of a stream, and not yet passed on."""

    def __init__(self, shape: Shape, index: int, asked: Generation) -> None:
        self._shape, self._index = shape, index
        self._waiting: list[Piece] = []
        self._offset, self._begun = 0, False
        self._readings = readings_of(asked)

    def add(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        """A chunk with all that is new, once there is text or an end to tell of."""
        self._waiting += pieces
        if not any(piece.text or piece.finish for piece in pieces):
            return None
        shape, new, self._waiting = self._shape, self._waiting, []
        tokens = [piece.token for piece in new]
        logprobs = shape.logprobs(tokens, self._offset)
        if logprobs is not None:
            self._offset += sum(len(shape.text(token.id)) for token in tokens)
        more: Mapping[str, Any] = {}
        if self._readings is not None:
            since = len(self._readings.tokens)
            report = _reported(self._readings, new, since)
            more = {} if report is None else {KEY: report}
        first, self._begun = not self._begun, True
        return shape.chunk([shape.delta(self._index, new, logprobs, first=first)], **more)


def readings_of(asked: Generation) -> Reply | None:
    """Where the readings of a reply are gathered; None if it is not read."""
    steered = asked.steered
    if steered is None or not steered.read or steered.pack.readout is None:
        return None
    return Reply(steered.pack.readout.classes, steered.pack.readout.layers)


def whole_readings(asked: Generation, pieces: Sequence[Piece]) -> Any:
    """The readings of a whole reply; None if it is not read."""
    readings = readings_of(asked)
    return None if readings is None else _reported(readings, pieces, 0)


def _reported(readings: Reply, pieces: Sequence[Piece], since: int) -> Any:
    readings.tokens += [piece.scores for piece in pieces if piece.scores is not None]
    return readings.report(since) if readings.tokens else None
