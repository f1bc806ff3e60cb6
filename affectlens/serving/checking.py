"""Is a running server really steering? Asked from outside, the way its clients ask."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from affectlens.core import DataError
from affectlens.serving.contract import KEY, PACKS_ROUTE, STATE_ROUTE

PROMPT = "My train was cancelled and I have to wait two hours. I feel"
_TOKENS = 24


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        passed: None if it could not be looked at.
        text: What was found, for people.
    """

    passed: bool | None
    text: str


@dataclass(frozen=True)
class Answer:
    """Of the server.

    Attributes:
        status: HTTP status.
        body: Decoded JSON, or None.
    """

    status: int
    body: Any

    @property
    def sentence(self) -> str:
        """What an error says."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        message = error.get("message") if isinstance(error, dict) else error
        return str(message or f"status {self.status}")


@dataclass(frozen=True)
class Server:
    """A server by its address.

    Attributes:
        url: Such as ``http://127.0.0.1:8000``.
        api_key: If it wants one.
        timeout: Seconds per request.
    """

    url: str
    api_key: str | None = None
    timeout: float = 120

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            sound = parts.scheme in ("http", "https") and bool(parts.netloc)
        except ValueError:  # half an IPv6 address
            sound = False
        if not sound:
            raise DataError(
                f"Give the server's address such as http://127.0.0.1:8000, not {self.url!r}."
            )

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """GET, or POST if there is a body.

        Raises:
            DataError: If nothing answers.
        """
        try:
            with self.opener().open(self.request(path, body), timeout=self.timeout) as reply:
                return Answer(reply.status, _decoded(reply.read()))
        except urllib.error.HTTPError as error:
            return Answer(error.code, _decoded(error.read()))
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise DataError(f"No answer from {self.url} ({reason}); is it running?") from error

    def request(self, path: str, body: Mapping[str, Any] | None = None) -> urllib.request.Request:
        """A GET, or a POST if there is a body, with the key."""
        request = urllib.request.Request(self.url.rstrip("/").removesuffix("/v1") + path)
        if self.api_key:
            request.add_header("Authorization", f"Bearer {self.api_key}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        return request

    def opener(self) -> urllib.request.OpenerDirector:
        """No proxy (``http_proxy``) leads to a server on this machine."""
        here = urllib.parse.urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")
        return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


@dataclass(frozen=True)
class _Probe:
    """Greedy completions of one prompt."""

    ask: Callable[[str, Mapping[str, Any] | None], Answer]
    model: str
    prompt: str

    def __call__(self, spec: str, pack: str | None) -> Answer:
        named = {} if pack is None else {f"{KEY}_pack": pack}
        return self.ask(
            "/v1/completions",
            {
                "model": self.model,
                "prompt": self.prompt,
                "max_tokens": _TOKENS,
                "temperature": 0,
                "vllm_xargs": {KEY: spec, **named},
            },
        )

    def text(self, spec: str, pack: str | None) -> str:
        answer = self(spec, pack)
        if answer.status != 200:
            raise DataError(f"The server does not accept {spec!r}: {answer.sentence}")
        return str(answer.body["choices"][0]["text"])


def check_server(
    server: Server, spec: str | None = None, pack: str | None = None, prompt: str = PROMPT
) -> Generator[Finding]:
    """Look at a server from outside, one finding after the other.

    It is steering if all findings passed (some may be None).

    Args:
        server: Which.
        spec: A strong request; default: twice the recommended dose of the pack's first emotion.
        pack: Which pack; default: the server's.
        prompt: What to complete, greedily.

    Raises:
        DataError: If nothing answers there, or not as a server of completions does.
    """
    models = server.ask("/v1/models")
    if models.status != 200:
        raise DataError(f"{server.url} lists no models: {models.sentence}.")
    name = models.body["data"][0]["id"]
    yield Finding(True, f"{server.url} serves {name}.")
    before, listed = server.ask(STATE_ROUTE), server.ask(PACKS_ROUTE)
    watched = before.status == listed.status == 200
    if watched:
        packs = listed.body["packs"]
        found = ", ".join(one["name"] for one in packs)
        yield Finding(bool(packs), f"Packs: {found or 'none is loaded'}.")
        spec = spec or _strong(packs, pack)
    else:
        yield Finding(
            None if before.status == 404 else False,
            "There is no /plugins/affectlens (VLLM_PLUGINS does not name affectlens); its counters "
            "cannot be watched."
            if before.status == 404
            else before.sentence,
        )
        spec = spec or "anger=2"
    yield from _compare(_Probe(server.ask, name, prompt), spec, pack)
    if watched:
        yield _moved(before.body, server.ask(STATE_ROUTE))


def _strong(packs: Any, pack: str | None) -> str:
    chosen = next((one for one in packs if one["name"] == pack), packs[0] if packs else None)
    return f"{chosen['emotions'][0]}=2" if chosen else "anger=2"


def _compare(probe: _Probe, spec: str, pack: str | None) -> Generator[Finding]:
    plain = probe.text("none", None)
    try:
        steered = probe.text(spec, pack)
    except DataError as error:
        yield Finding(False, str(error))
        return
    yield Finding(
        steered != plain,
        f"{spec} changes the reply:\n  unsteered: {plain.strip()!r}\n  steered:   "
        f"{steered.strip()!r}"
        if steered != plain
        else f"{spec} changes nothing: the reply is {plain.strip()!r} with and without it.",
    )
    again = probe.text("none", None)
    yield Finding(
        again == plain,
        "Unsteered requests stay unsteered."
        if again == plain
        else f"An unsteered request differs after a steered one: {again.strip()!r} (on a busy "
        "server rounding can do that; try again when it is idle).",
    )
    wrong = probe(f"no-such-emotion-{KEY}=1", pack)
    yield Finding(
        wrong.status == 400,
        f"A wrong spec is refused: {wrong.sentence}"
        if wrong.status == 400
        else f"A wrong spec is answered with {wrong.status} instead of 400: vLLM does not "
        "look at it.",
    )


def _moved(before: Mapping[str, Any], after: Answer) -> Finding:
    if after.status != 200:
        return Finding(False, f"The server's state cannot be read any more: {after.sentence}")
    names = ("requests_steered", "tokens_steered", "requests_refused")
    grown = {name: int(after.body[name]) - int(before[name]) for name in names}
    still = [name for name, amount in grown.items() if amount < 1]
    told = ", ".join(f"{name} +{amount}" for name, amount in grown.items())
    return Finding(not still, f"Counters {'did not all move' if still else 'moved'}: {told}.")
