"""The bodies of requests for text, as OpenAI and vLLM define them, as far as they are served."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from affectlens.models.generation.decoding import GenerationSettings

Number = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**62), le=2**62)]
Tokens = Annotated[int, Field(ge=0, le=2**31 - 1)]
MAX_STOPS = 16
MAX_LOGPROBS = 20


class StreamOptions(BaseModel):
    """What a stream holds besides text."""

    model_config = ConfigDict(extra="allow")
    include_usage: bool = False


class TextBody(BaseModel):
    """What both routes take.

    Attributes:
        model: Name of the served model; may be left out.
        max_tokens: Longest reply.
        min_tokens: No end before so many tokens.
        n: Replies per prompt; reply ``i`` is drawn with ``seed + i``.
        stop: One string or several; none of them is part of the reply.
        seed: Of sampling; the same seed gives the same reply, whatever else is served meanwhile.
        temperature: 0 is greedy.
        top_p: Sample among the likeliest tokens that hold this share of the probability.
        repetition_penalty: As in `GenerationSettings`, its default included.
        stream: Server-sent events.
        stream_options: ``include_usage`` only.
        ignore_eos: Never end by itself.
        return_token_ids: Tell the tokens of prompt and reply, where vLLM tells them.
        vllm_xargs: ``affectlens``, ``affectlens_pack``, ``affectlens_read``.
        steering: Instead of ``vllm_xargs.affectlens``: a spec as text or as an object.
    """

    # Others are looked at in `refused_fields`: some change nothing, some are refused in words.
    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    min_tokens: Tokens | None = None
    n: Annotated[int, Field(ge=1, le=1024)] | None = None
    stop: str | list[str] | None = None
    seed: Seed | None = None
    temperature: Annotated[Number, Field(ge=0, le=100)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[Number, Field(ge=0.01, le=100)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    return_token_ids: bool | None = None
    vllm_xargs: dict[str, Any] | None = None
    steering: str | dict[str, Any] | None = None

    @property
    def penalty(self) -> float:
        """Of repetition."""
        default = GenerationSettings().repetition_penalty
        return default if self.repetition_penalty is None else self.repetition_penalty


class Message(BaseModel):
    """A turn of a chat. Contents are texts, or lists of parts of type ``text``."""

    model_config = ConfigDict(extra="allow")
    role: str
    content: str | list[dict[str, Any]] | None = None


class ChatBody(TextBody):
    """``/v1/chat/completions``.

    Attributes:
        messages: The chat.
        max_completion_tokens: The same as ``max_tokens``, by its newer name.
        logprobs: Whether to tell the probability of every token.
        top_logprobs: And of how many others.
        chat_template_kwargs: What the chat template is told besides.
    """

    messages: list[Message]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionBody(TextBody):
    """``/v1/completions``.

    Attributes:
        prompt: A text, several, or the same as token ids.
        logprobs: How many likeliest tokens to tell beside each.
    """

    prompt: str | list[int] | list[str] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None


class PackBody(BaseModel):
    """A pack to load.

    Attributes:
        name: What requests will call it.
        path: In the folder the operator allows.
        replace: Take the place of the pack that has this name.
    """

    name: str
    path: str
    replace: Literal[True, False] = False
