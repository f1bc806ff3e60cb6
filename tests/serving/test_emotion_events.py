"""The emotion stream: events by the schema, from chunks as both servers send them; its clients."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.core import DataError
from affectlens.core.emotions import VAD
from affectlens.serving.checking import Server
from affectlens.serving.emotion_events import EmotionEvent, events_of, listen, mean_vad, schema

CLASSES = ["anger", "happiness", "neutral"]
EXAMPLES = Path(__file__).parents[2] / "examples"


def chunk(rows: list[list[float]], *, text: str = "", tokens: tuple[str, ...] = ()) -> str:
    choice: dict[str, Any] = {"index": 0, "delta": {"content": "".join(tokens) or text}}
    if tokens:
        choice["logprobs"] = {"content": [{"token": t, "logprob": -1.0} for t in tokens]}
    body = {"object": "chat.completion.chunk", "choices": [choice]}
    layers = [[[0.2, 0.3, 0.5], row] for row in rows]  # of block 4, then of block 9
    report = {"classes": CLASSES, "layers": [4, 9], "tokens": layers, "reply": rows[-1:]}
    return f"data: {json.dumps({**body, 'affectlens': report})}\n"


STREAM = [
    'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n',
    "\n",
    chunk([[0.7, 0.1, 0.2]], tokens=("My",)),
    chunk([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], tokens=(" tr", "ain")),
    ": a comment\n",
    chunk([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], text=" left"),
    'data: {"choices":[],"usage":{"total_tokens":9}}\n',
    "data: [DONE]\n",
]


def seconds() -> Any:
    ticks = iter(float(i) for i in range(100))
    return lambda: next(ticks)


def found() -> list[EmotionEvent]:
    return list(events_of(STREAM, seconds()))


def test_events_are_those_of_the_chunks() -> None:
    events = found()
    assert [e.text for e in events] == ["My", " tr", "ain", "", " left"]
    assert [e.index for e in events] == [0, 1, 2, 3, 4]
    assert [e.time for e in events] == [1, 2, 2, 3, 3] and {e.layer for e in events} == {9}
    assert events[0].probabilities == {"anger": 0.7, "happiness": 0.1, "neutral": 0.2}
    assert [e.confidence for e in events] == [0.7, 0.5, 0.8, 1, 1]
    other = list(events_of(STREAM, seconds(), layer=4))
    assert {e.layer for e in other} == {4} and other[0].probabilities["neutral"] == 0.5


def test_coordinates_are_means_of_published_ones() -> None:
    anger, happiness = VAD["anger"], VAD["happiness"]
    vad = found()[0].vad
    assert vad is not None
    for i, name in enumerate(("valence", "arousal", "dominance")):
        assert math.isclose(vad[name], 0.7 * anger[i] + 0.1 * happiness[i])
    assert mean_vad({"neutral": 1.0}) == {"valence": 0, "arousal": 0, "dominance": 0}
    assert mean_vad({"anger": 0.5, "politeness": 0.5}) is None


def test_every_event_fits_the_schema_and_wrong_ones_do_not() -> None:
    check = jsonschema.Draft202012Validator(schema())
    check.check_schema(schema())
    events = [json.loads(json.dumps(e.to_dict())) for e in found()]
    for event in events:
        check.validate(event)
    check.validate({**events[0], "vad": None})
    for wrong in ({"version": 2}, {"index": -1}, {"time": -0.1}, {"text": None}, {"more": 1},
                  {"probabilities": {}}, {"probabilities": {"anger": 1.5}}, {"confidence": 2},
                  {"vad": {"valence": 0}}, {"layer": "9"}):  # fmt: skip
        assert not check.is_valid({**events[0], **wrong}), wrong


def test_streams_that_are_none_are_refused_in_one_sentence() -> None:
    plain = ['data: {"choices":[{"delta":{"content":"Hi"}}]}\n', "data: [DONE]\n"]
    for lines, sentence in (
        (plain, "no probes"),
        ([], "no readings"),
        (["data: {no\n"], "no JSON"),
        (['data: {"error":{"message":"out of memory"}}\n'], "out of memory"),
    ):
        with pytest.raises(DataError, match=sentence):
            list(events_of(lines))
    with pytest.raises(DataError, match=r"\[4, 9\], not behind 7"):
        list(events_of(STREAM, layer=7))


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any]]]:
    """A server that streams the chunks above, and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(json.dumps({"data": [{"id": "tiny"}]}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body, self.headers.get("Authorization")))
            if body["vllm_xargs"].get("affectlens") == "angr":
                self._send(json.dumps({"error": {"message": "Unknown emotion 'angr'."}}), 400)
            else:
                self._send("".join(STREAM))

        def _send(self, text: str, status: int = 200) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", asked
    http.shutdown()
    http.server_close()
    thread.join()


def test_a_server_is_listened_to(server: tuple[str, list[Any]]) -> None:
    url, asked = server
    given = listen(Server(url, "key"), "Hi", spec="anger=1", pack="demo", max_tokens=7, layer=4)
    events = list(given)
    assert len(events) == 5 and events[0].time >= 0 and events[0].layer == 4
    ((path, body, key),) = asked
    assert path == "/v1/chat/completions" and key == "Bearer key"
    assert body["stream"] and body["logprobs"] and body["model"] == "tiny"
    assert body["max_tokens"] == 7 and body["messages"][0]["content"] == "Hi"
    xargs = {"affectlens": "anger=1", "affectlens_pack": "demo", "affectlens_read": True}
    assert body["vllm_xargs"] == xargs
    with pytest.raises(DataError, match="Unknown emotion 'angr'"):
        list(listen(Server(url), "Hi", spec="angr"))
    with pytest.raises(DataError, match="is it running"):
        list(listen(Server("http://127.0.0.1:9"), "Hi"))


def test_the_command_prints_a_line_per_token(server: tuple[str, list[Any]]) -> None:
    url, asked = server
    words = ["-e", "anger=1", "--pack", "p", "--max-tokens", "5", "--layer", "4"]
    command = ["events", "Hi", "--url", url, *words, "--api-key", "k"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    check = jsonschema.Draft202012Validator(schema())
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 5 and {line["layer"] for line in lines} == {4}
    for line in lines:
        check.validate(line)
    assert asked[-1][1]["max_tokens"] == 5 and asked[-1][2] == "Bearer k"
    assert CliRunner().invoke(app, ["events", "Hi", "--url", url, "-e", "angr"]).exit_code == 1


def client(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines() -> list[str]:
    return [json.dumps(event.to_dict()) for event in found()]


def test_a_face_follows_the_stream() -> None:
    out = io.StringIO()
    module = client("terminal_face")
    module.show(lines(), out)
    shown = out.getvalue().splitlines()
    assert len(shown) == 5 and "anger" in shown[0] and " 70%" in shown[0] and '"My"' in shown[0]
    vads = {"joy": VAD["happiness"], "anger": VAD["anger"], "fear": VAD["fear"],
            "sadness": VAD["sadness"], "calm": (0.0, 0.0, 0.0)}  # fmt: skip
    names = ("valence", "arousal", "dominance")
    faces = {e: module.face(dict(zip(names, vad, strict=True))) for e, vad in vads.items()}
    assert len(set(faces.values())) == 5 and faces["joy"].endswith("D")
    assert faces["anger"].endswith("(") and faces["sadness"].endswith("(")
    assert module.face(None) == "( ?_? )"


def test_frames_lie_on_the_curve(tmp_path: Path) -> None:
    module = client("talking_head")
    frames, vad = module.resampled(lines(), 4)
    assert frames.tolist() == [i / 4 for i in range(13)]  # until the last token, at 3 s
    events = found()
    first = events[0].vad["valence"]  # type: ignore[index]
    second = np.mean([e.vad["valence"] for e in events[1:3]])  # type: ignore[index]
    assert vad[0, 0] == vad[4, 0] == pytest.approx(first)  # nothing is known before the first
    assert vad[8, 0] == pytest.approx(second) and vad[6, 0] == pytest.approx((first + second) / 2)
    module.write(tmp_path / "f", 4, frames, vad)
    with np.load(tmp_path / "f.npz") as kept:
        assert np.array_equal(kept["vad"], vad) and kept["fps"] == 4
    rows = list(csv.DictReader((tmp_path / "f.csv").open(encoding="utf-8")))
    assert len(rows) == 13 and float(rows[6]["arousal"]) == pytest.approx(vad[6, 1], abs=1e-4)
    with pytest.raises(SystemExit, match="no valence"):
        module.resampled([json.dumps({**found()[0].to_dict(), "vad": None})], 4)


def test_speech_follows_the_stream() -> None:
    module = client("speech_prosody")
    text = module.ssml(lines())
    speak = ElementTree.fromstring(text)
    spans = list(speak)
    assert "".join(span.text or "" for span in spans) == "My train left"
    first = found()[0].vad
    assert first is not None
    assert spans[0].attrib["pitch"] == f"{round(20 * first['valence']):+d}%"
    assert spans[0].attrib["rate"] == f"{round(100 + 25 * first['arousal'])}%"
    assert len({span.attrib["pitch"] for span in spans}) > 1
    sharp = {**found()[0].to_dict(), "text": "a < b & c"}
    assert "a &lt; b &amp; c" in module.ssml([json.dumps(sharp)])


def asgi(chunks: list[bytes], path: str, *, query: bytes = b"prompt=Hi") -> list[Any]:
    """What `EventRoute` sends before an app that streams these pieces."""
    import asyncio

    from affectlens.serving.event_route import EventRoute

    sent: list[Any] = []

    async def app_(scope: Any, receive: Any, send: Any) -> None:
        body = json.loads((await receive())["body"]) if scope["method"] == "POST" else None
        sent.append((scope["path"], body))
        headers = [(b"content-type", b"text/event-stream"), (b"x-kept", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for k, part in enumerate(chunks):
            more = k < len(chunks) - 1
            await send({"type": "http.response.body", "body": part, "more_body": more})

    async def nothing() -> Any:
        return {"type": "http.disconnect"}

    async def keep(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": []}
    asyncio.run(EventRoute(app_)(scope, nothing, keep))
    return sent


def test_the_route_tells_the_same_however_the_stream_is_cut() -> None:
    whole = "".join(STREAM).encode()
    for size in (1, 7, 50, len(whole)):
        pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
        (path, body), start, *rest = asgi(pieces, "/v1/affectlens/events")
        assert path == "/v1/chat/completions" and body["vllm_xargs"] == {"affectlens_read": True}
        assert dict(start["headers"]) == {
            b"x-kept": b"1", b"content-type": b"application/x-ndjson"
        }  # fmt: skip
        lines = b"".join(one["body"] for one in rest).decode().splitlines()
        given = [json.loads(line) for line in lines]
        assert [one["text"] for one in given] == [e.text for e in found()]
        assert [one["more_body"] for one in rest][-1] is False


def test_the_route_tells_what_went_wrong_by_the_status_or_the_last_line() -> None:
    gone = b'data: {"error":{"message":"out of memory"}}\n'
    _, start, body = asgi([gone], "/v1/affectlens/events")
    assert (
        start["status"] == 400 and "out of memory" in json.loads(body["body"])["error"]["message"]
    )
    late = ["".join(STREAM[:4]).encode(), gone, b"data: [DONE]\n"]
    _, start, *rest = asgi(late, "/v1/affectlens/events")
    assert start["status"] == 200
    last = b"".join(one["body"] for one in rest).decode().splitlines()[-1]
    assert "out of memory" in json.loads(last)["error"]["message"]
    assert [one["more_body"] for one in rest][-1] is False
    _, start, body = asgi([b"data: [DONE]\n"], "/v1/affectlens/events")
    assert start["status"] == 400 and "no readings" in body["body"].decode()
    (path, _), start, *_ = asgi([b"x"], "/v1/models")
    assert path == "/v1/models" and start["status"] == 200  # others pass as they are
