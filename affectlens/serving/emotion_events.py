"""The stream of emotions: one event per token of a reply, from any server of steered models.

Made on the client's side of what both servers stream (``affectlens_read``), so that whatever drives
a face, a gesture or a voice reads one versioned form (`schema`).
"""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from affectlens.core import DataError
from affectlens.core.emotions import DIMENSIONS, VAD
from affectlens.serving.checking import Answer, Server
from affectlens.serving.contract import KEY

EVENT_VERSION = 1
_DATA, _END = "data:", "[DONE]"
_PACK, _READ = f"{KEY}_pack", f"{KEY}_read"


@dataclass(frozen=True)
class EmotionEvent:
    """One token.

    Attributes:
        index: Of the token in the reply.
        time: Seconds from the request to its arrival.
        text: What it adds to the reply.
        layer: Block behind which it was read.
        probabilities: By label.
        vad: Valence, arousal and dominance in [-1, 1]; None if a label has no coordinates.
        confidence: Probability of the likeliest label.
        version: Of this form.
    """

    index: int
    time: float
    text: str
    layer: int
    probabilities: Mapping[str, float]
    vad: Mapping[str, float] | None
    confidence: float
    version: int = EVENT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain form; `schema` describes it."""
        return asdict(self)


def schema() -> dict[str, Any]:
    """The JSON schema of an event."""
    text = files("affectlens.serving").joinpath("emotion_event.schema.json").read_text("utf-8")
    return json.loads(text)


def mean_vad(probabilities: Mapping[str, float]) -> dict[str, float] | None:
    """Mean of the labels' coordinates by their probabilities; None if a label has none."""
    if not set(probabilities) <= set(VAD):
        return None
    return {
        name: min(1.0, max(-1.0, sum(p * VAD[label][i] for label, p in probabilities.items())))
        for i, name in enumerate(DIMENSIONS)
    }


class EventReader:
    """Makes events of the lines of a stream of chunks.

    Args:
        clock: Seconds; read once per chunk.
        start: When the request was made, by the same clock; default: now.
        layer: Of the blocks that the pack reads behind; default: the last.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        start: float | None = None,
        layer: int | None = None,
    ) -> None:
        self._clock, self._layer = clock, layer
        self._start = clock() if start is None else start
        self._index, self._silent = 0, False

    def feed(self, line: str) -> list[EmotionEvent]:
        """Events of a line of the HTTP body, ``data: {...}``.

        Raises:
            DataError: If the server reports an error.
        """
        content = line.strip().removeprefix(_DATA).strip()
        if not line.startswith(_DATA) or not content or content == _END:
            return []
        try:
            chunk: Any = json.loads(content)
        except ValueError as error:
            raise DataError(f"The server sent a line that is no JSON: {content[:80]!r}.") from error
        if "error" in chunk:
            raise DataError(f"The server stopped: {chunk['error'].get('message', chunk['error'])}")
        report = chunk.get(KEY)
        choice = (chunk.get("choices") or [{}])[0]
        texts = _texts(choice)
        if report is None:
            self._silent = self._silent or any(texts)
            return []
        now = self._clock() - self._start
        tokens = report["tokens"]
        found = [
            _event(self._index + k, now, _text_at(texts, k, len(tokens)), report, rows, self._layer)
            for k, rows in enumerate(tokens)
        ]
        self._index += len(found)
        return found

    def finish(self) -> None:
        """The stream has ended.

        Raises:
            DataError: If there were no readings in it.
        """
        if not self._index:
            raise DataError(
                "The server sent no readings"
                + (": its pack has no probes; make one with `affectlens run`."
                   if self._silent else ".")
            )  # fmt: skip


def events_of(
    lines: Iterable[str],
    clock: Callable[[], float] = time.monotonic,
    *,
    start: float | None = None,
    layer: int | None = None,
) -> Iterator[EmotionEvent]:
    """Events of a stream of chunks, as they arrive.

    Args:
        lines: Of the HTTP body, ``data: {...}``.
        clock, start, layer: As for `EventReader`.

    Raises:
        DataError: If the server reports an error, or sends no readings.
    """
    reader = EventReader(clock, start=start, layer=layer)
    for line in lines:
        yield from reader.feed(line)
    reader.finish()


def chat_body(
    messages: Sequence[Mapping[str, Any]], *, spec: str | None = None, pack: str | None = None
) -> dict[str, Any]:
    """The body of a request whose stream has events.

    Args:
        messages: The conversation.
        spec: What to steer with.
        pack: Which pack; default: the server's first.
    """
    options = {KEY: spec, _PACK: pack}
    given = {"messages": list(messages)}
    xargs = {name: value for name, value in options.items() if value is not None}
    return read_along({**given, "vllm_xargs": xargs})


def read_along(body: Mapping[str, Any]) -> dict[str, Any]:
    """A chat request as a stream with readings, which names each token's own text."""
    xargs = {**(body.get("vllm_xargs") or {}), _READ: True}
    return {**body, "stream": True, "logprobs": True, "vllm_xargs": xargs}


def listen(
    server: Server, prompt: str, *, spec: str | None = None, pack: str | None = None,
    max_tokens: int = 60, layer: int | None = None,
) -> Iterator[EmotionEvent]:  # fmt: skip
    """Ask a server for a reply, and give its events while it is written.

    Args:
        server: Where.
        prompt: What the user says.
        spec: What to steer with.
        pack: Which pack; default: the server's first.
        max_tokens: Longest reply.
        layer: As for `events_of`.

    Raises:
        DataError: If the server cannot be reached, refuses, or sends no readings.
    """
    asked = chat_body([{"role": "user", "content": prompt}], spec=spec, pack=pack)
    body = {"model": _model(server), "max_tokens": max_tokens, **asked}
    request = server.request("/v1/chat/completions", body)
    start = time.monotonic()
    try:
        with server.opener().open(request, timeout=server.timeout) as answer:
            lines = (raw.decode("utf-8", "replace") for raw in answer)
            yield from events_of(lines, start=start, layer=layer)
    except urllib.error.HTTPError as error:
        raise DataError(f"The server refused: {_sentence(error)}") from error
    except (urllib.error.URLError, OSError) as error:
        raise DataError(f"{server.url} stopped answering ({error}); is it running?") from error


def _event(
    index: int, now: float, text: str, report: Mapping[str, Any], rows: Any, layer: int | None
) -> EmotionEvent:
    layers: Sequence[int] = report["layers"]
    if layer is not None and layer not in layers:
        raise DataError(f"The pack reads behind the blocks {list(layers)}, not behind {layer}.")
    place = len(layers) - 1 if layer is None else list(layers).index(layer)
    row = [float(p) for p in rows[place]]
    probabilities = dict(zip(report["classes"], row, strict=True))
    return EmotionEvent(
        index, round(now, 4), text, int(layers[place]), probabilities,
        mean_vad(probabilities), max(row),
    )  # fmt: skip


def _texts(choice: Mapping[str, Any]) -> list[str]:
    """Of the tokens of a chunk if it names them, else all of its text."""
    named = (choice.get("logprobs") or {}).get("content")
    if named:
        return [str(one["token"]) for one in named]
    delta = choice.get("delta") or {}
    text = choice.get("text") or delta.get("content") or ""
    return [str(text)] if text else []


def _text_at(texts: Sequence[str], k: int, tokens: int) -> str:
    if len(texts) == tokens:
        return texts[k]
    # Not told apart: all of it stands at the last token.
    return "".join(texts) if k == tokens - 1 else ""


def _model(server: Server) -> str:
    answer = server.ask("/v1/models")
    try:
        return str(answer.body["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise DataError(f"{server.url} names no model: {answer.sentence}") from None


def _sentence(error: urllib.error.HTTPError) -> str:
    text = error.read().decode("utf-8", "replace")
    try:
        return Answer(error.code, json.loads(text)).sentence
    except ValueError:
        return text.strip().split("\n")[0] or f"status {error.code}"
