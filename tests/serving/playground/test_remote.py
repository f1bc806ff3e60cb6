"""The page before another server: ours, one that talks as vLLM does, and one that is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.responses import JSONResponse, StreamingResponse

from affectlens.core import DataError
from affectlens.serving.playground.remote import build_remote, check_upstream, checked_url
from tests.serving.playground.playing import BROWSER, FLAGS, full_pack, listening, served

EMOTIONS = ["anger", "happiness"]
CLASSES = [*EMOTIONS, "neutral"]


def talks_as_vllm(key: str | None = None) -> FastAPI:
    """The routes that the plug-in gives vLLM, as docs/serving.md has them; it writes one reply."""
    app = FastAPI()
    app.state.asked = []

    def refused(request: Request) -> JSONResponse | None:
        if key is None or request.headers.get("authorization") == f"Bearer {key}":
            return None
        return JSONResponse({"error": {"message": "No key."}}, 401)

    @app.get("/v1/models")
    def models(request: Request) -> Any:
        return refused(request) or {"data": [{"id": "served"}]}

    @app.get("/plugins/affectlens/packs")
    def packs(request: Request) -> Any:
        one = {"name": "far", "default": True, "emotions": EMOTIONS, "modes": ["circuit"]}
        return refused(request) or {
            "packs": [
                {**one, "positions": {"circuit": "generated"}, "reads": [*EMOTIONS, "neutral"]}
            ]
        }

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        body = await request.json()
        app.state.asked.append(body)
        if "bad" in body["messages"][-1]["content"]:
            return JSONResponse({"error": {"message": "This is refused."}}, 400)

        def chunks() -> Iterator[str]:
            for k, text in enumerate(["Oh", " no", "!"]):
                token = {"token": text, "logprob": -1, "bytes": list(text.encode())}
                choice = {
                    "index": 0, "delta": {"content": text}, "logprobs": {"content": [token]},
                    "finish_reason": "stop" if k == 2 else None,
                }  # fmt: skip
                read = {"classes": CLASSES, "layers": [3], "tokens": [[[0.8, 0.1, 0.1]]]}
                yield f"data: {json.dumps({'choices': [choice], 'affectlens': read})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(chunks(), media_type="text/event-stream")

    return app


def test_our_own_server_is_passed_through(tiny_model: Any, tmp_path: Path) -> None:
    with served(tiny_model(), tmp_path, demo=full_pack(tiny_model())) as url:
        with TestClient(build_remote(url), base_url="http://127.0.0.1:9") as client:
            about = client.get("/affectlens/play/about").json()
            assert about["server"] == "affectlens" and about["address"] == url
            body: dict[str, Any] = {
                "messages": [{"role": "user", "content": "Hi"}],
                "reply": [5, 6],
            }
            found = client.post("/affectlens/play/inspect", json=body)
            assert found.status_code == 200 and len(found.json()["kl"]) == 2
            wrong = client.post("/affectlens/play/inspect", json={**body, "steering": "angr=1"})
            assert wrong.status_code in (400, 404) and "anger" in wrong.json()["error"]["message"]
            assert client.get("/play").status_code == 200
        check_upstream(url, None)


def test_vllm_tells_less_and_the_page_leaves_it_out() -> None:
    with (
        listening(talks_as_vllm()) as url,
        TestClient(build_remote(url), base_url="http://127.0.0.1:9") as client,
    ):
        about = client.get("/affectlens/play/about").json()
        assert about["server"] == "vllm" and about["model"] == "served"
        assert about["can"]["inspect"] is False
        pack = about["packs"][0]
        assert pack["emotions"] == EMOTIONS and pack["calibrated"] is None
        body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
        assert "Oh" in client.post("/v1/chat/completions", json=body).text


def test_a_key_is_given_by_the_playground_alone() -> None:
    with listening(talks_as_vllm("secret")) as url:
        with pytest.raises(DataError, match="does not say that it steers"):
            check_upstream(url, None)
        check_upstream(url, "secret")
        with TestClient(build_remote(url, "secret"), base_url="http://127.0.0.1:9") as client:
            found = client.get("/affectlens/play/about")
            assert found.status_code == 200 and "secret" not in found.text
        foreign = TestClient(build_remote(url, "secret"), base_url="http://evil.example")
        with foreign as client:
            assert client.get("/affectlens/play/about").status_code == 403


def test_a_server_that_is_not_there_is_said() -> None:
    with TestClient(build_remote("http://127.0.0.1:9"), base_url="http://127.0.0.1:9") as client:
        found = client.get("/affectlens/play/about")
        assert found.status_code == 400 and "does not answer" in found.json()["error"]["message"]
        assert client.post("/v1/chat/completions", json={}).status_code == 400


@pytest.mark.parametrize("url", ["", "nowhere", "ftp://x", "http://", "127.0.0.1:8000"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(DataError, match="no address of a server"):
        checked_url(url)


def test_addresses_are_taken_as_people_write_them() -> None:
    for url in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"):
        assert checked_url(url) == "http://h:1"


@pytest.mark.skipif(BROWSER is None, reason="no browser: install chromium")
def test_the_page_works_before_vllm_without_what_it_cannot_tell() -> None:
    from playwright.sync_api import sync_playwright

    upstream = talks_as_vllm()
    with (
        listening(upstream) as url,
        listening(build_remote(url)) as own,
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda one: complaints.append(one.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{own}/play#steer=anger%3D0.6")
        page.wait_for_selector("html[data-ready]")
        page.get_by_role("button", name="Send").click()
        page.wait_for_function("() => document.querySelectorAll('[data-k]').length === 6")
        page.locator("[data-k]").last.click()
        assert "anger 80 %" in page.locator(".al-inspector").inner_text()
        assert page.get_by_text("KL divergence").count() == 0
        assert page.get_by_label("What colours tokens").locator("option").count() == 1
        assert page.locator(".al-warnings").inner_text() == ""
        specs = sorted(one["vllm_xargs"]["affectlens"] for one in upstream.state.asked)
        assert specs == ["anger=0.6", "none"]
        assert all(one["vllm_xargs"]["affectlens_read"] for one in upstream.state.asked)
        assert complaints == []
        page.get_by_label("What you say").fill("bad")
        page.get_by_role("button", name="Send").click()
        page.get_by_text("This is refused.").first.wait_for()
        browser.close()
