"""The routes that make text."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from affectlens.core.jsonl import json_line
from affectlens.serving.contract import KEY
from affectlens.serving.local.generation import Generation, Piece
from affectlens.serving.local.http_errors import answer, told
from affectlens.serving.local.listening import ClientGone, Listener, unless_gone
from affectlens.serving.local.replies import Progress, Shape, Usage, whole_readings
from affectlens.serving.local.request_body import ChatBody, CompletionBody, TextBody
from affectlens.serving.local.service import Service
from affectlens.serving.local.wanted import wanted

router = APIRouter()
GONE = 499
"""Status of an answer that nobody reads; nginx's number."""

Heard = AsyncGenerator[tuple[int, list[Piece]], None]


@router.post("/v1/chat/completions", response_model=None)
async def chat(body: ChatBody, request: Request) -> Response:
    """Reply to a chat, steered or not; with ``stream`` as server-sent events."""
    service: Service = request.app.state.service
    return await _texts(service, body, Shape.of_chat(service.token_text, service.name), request)


@router.post("/v1/completions", response_model=None)
async def completions(body: CompletionBody, request: Request) -> Response:
    """Continue texts, steered or not; with ``stream`` as server-sent events."""
    service: Service = request.app.state.service
    shape = Shape.of_completion(service.token_text, service.name)
    return await _texts(service, body, shape, request)


@router.get("/v1/models", response_model=None)
async def models(request: Request) -> Response:
    """The one model there is."""
    service: Service = request.app.state.service
    one = {
        "id": service.name,
        "object": "model",
        "created": 0,
        "owned_by": "affectlens",
        "max_model_len": service.engine.longest,
    }
    return service.json({"object": "list", "data": [one]})


async def _texts(service: Service, body: TextBody, shape: Shape, request: Request) -> Response:
    asked = await run_in_threadpool(wanted, service, body)
    if body.return_token_ids:
        shape = replace(shape, prompts=tuple(one.prompt for one in asked))
    clock = _Clock(service)
    listener = Listener(service.engine, asked, whole=not body.stream)
    heard = listener.pieces()
    if body.stream:
        options = body.stream_options
        usage = Usage(_prompt_tokens(asked)) if options and options.include_usage else None
        return await _streamed(_Stream(shape, asked, heard, listener, clock, usage), request)
    try:
        return await unless_gone(request.receive, _whole(shape, asked, heard, clock))
    except ClientGone:
        clock.ended("cancelled")
        return Response(status_code=GONE)
    except Exception:
        clock.ended("failed")
        raise
    finally:
        listener.cancel()


async def _whole(
    shape: Shape, asked: Sequence[Generation], heard: Heard, clock: _Clock
) -> Response:
    found: dict[int, list[Piece]] = {}
    async for index, pieces in heard:
        clock.began()
        found[index] = pieces
        clock.ended(str(pieces[-1].finish))
    usage = Usage(_prompt_tokens(asked), sum(len(pieces) for pieces in found.values()))
    choices = [
        shape.choice(i, found[i], shape.logprobs([piece.token for piece in found[i]]))
        for i in sorted(found)
    ]
    reply = shape.reply(choices, usage)
    readings = whole_readings(asked[0], found[0])
    if readings is not None:  # where vLLM has them
        reply["kv_transfer_params"] = {KEY: readings}
    return Service.json(reply)


class _Clock:
    """Times of a request."""

    def __init__(self, service: Service) -> None:
        self._metrics = service.metrics
        self._start, self._begun = time.monotonic(), False

    def began(self) -> None:
        if not self._begun:
            self._begun = True
            self._metrics.began(time.monotonic() - self._start)

    def ended(self, how: str) -> None:
        self._metrics.ended(how, time.monotonic() - self._start)


class _Stream:
    """A reply that is sent as it is written."""

    def __init__(
        self,
        shape: Shape,
        asked: Sequence[Generation],
        heard: Heard,
        listener: Listener,
        clock: _Clock,
        usage: Usage | None,
    ) -> None:
        self._shape, self._asked, self._heard = shape, asked, heard
        self._listener, self._clock, self._usage = listener, clock, usage
        self._first: tuple[int, list[Piece]] | None = None
        self._left = len(asked)

    async def begin(self) -> None:
        """Wait for the first token: what goes wrong before it has a status of its own."""
        self._first = await anext(self._heard)
        self._clock.began()

    def cancel(self, how: str) -> None:
        """Give up."""
        self._listener.cancel()
        self._clock.ended(how)

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events."""
        shape = self._shape
        progress = [Progress(shape, i, asked) for i, asked in enumerate(self._asked)]
        how = "cancelled"
        try:
            if shape.chat:
                for i in range(len(self._asked)):
                    yield _event(shape.chunk([shape.opening(i)], **shape.chat_prompt()))
            assert self._first is not None
            index, pieces = self._first
            while True:
                if self._usage is not None:
                    self._usage.reply += len(pieces)
                chunk = progress[index].add(pieces)
                if chunk is not None:
                    yield _event(chunk)
                if pieces[-1].finish is not None:
                    how = pieces[-1].finish
                    self._left -= 1
                    if self._left == 0:
                        break
                    self._clock.ended(how)
                    how = "cancelled"
                index, pieces = await anext(self._heard)
            if self._usage is not None:
                yield _event(shape.chunk([], usage=self._usage.to_dict()))
            yield "data: [DONE]\n\n"
        except Exception as error:
            how = "failed"
            yield _event(told(error))  # the response has begun: its status cannot say it
            yield "data: [DONE]\n\n"
        finally:
            self.cancel(how)


async def _streamed(stream: _Stream, request: Request) -> Response:
    try:
        await unless_gone(request.receive, stream.begin())
    except ClientGone:
        stream.cancel("cancelled")
        return Response(status_code=GONE)
    except Exception as error:
        stream.cancel("failed")
        return answer(error)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream.events(), media_type="text/event-stream", headers=headers)


def _event(value: Any) -> str:
    return f"data: {json_line(value)}\n\n"


def _prompt_tokens(asked: Sequence[Generation]) -> int:
    """Of every prompt once, however often it is continued."""
    return sum(len(prompt) for prompt in {id(one.prompt): one.prompt for one in asked}.values())
