"""The notebook's widget: one module, the server's own routes, messages in place of HTTP."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from affectlens.core import DataError, MismatchError
from affectlens.serving.playground import play, read_text
from affectlens.serving.playground.bundle import bundled
from affectlens.serving.playground.page import static_files
from affectlens.steering import SteeringSpec
from tests.serving.playground.playing import BROWSER, FLAGS, full_pack, without_readings


@pytest.fixture
def widget(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    from affectlens.serving.playground import anywidgets

    sent: list[Any] = []
    monkeypatch.setattr(
        anywidgets.PlaygroundWidget,
        "send",
        lambda self, content, buffers=None: sent.append(content),
    )
    model = tiny_model()
    made = play(model, full_pack(model), "anger=0.5;mode=residual", prompt="Hello")
    made.sent = sent  # pyright: ignore[reportAttributeAccessIssue]
    yield made
    made.close()


def wait(sent: list[Any], name: str) -> tuple[int, str]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        mine = [one for one in list(sent) if one["id"] == name]
        if any("end" in one for one in mine):
            status = next((one["status"] for one in mine if "status" in one), 0)
            return status, "".join(one.get("text", "") for one in mine)
        time.sleep(0.02)
    raise AssertionError("no answer")


def ask(widget: Any, name: str, method: str, path: str, body: Any = None) -> None:
    text = None if body is None else json.dumps(body)
    widget._handle_custom_msg({"id": name, "method": method, "path": path, "body": text}, [])


def test_requests_are_answered_in_messages(widget: Any) -> None:
    ask(widget, "1", "GET", "/affectlens/play/about")
    status, text = wait(widget.sent, "1")
    about = json.loads(text)
    assert status == 200 and about["can"]["inspect"] and about["packs"][0]["name"] == "pack"
    body = {
        "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6, "temperature": 0,
        "stream": True, "steering": "anger=1",
    }  # fmt: skip
    ask(widget, "2", "POST", "/v1/chat/completions", body)
    status, text = wait(widget.sent, "2")
    assert status == 200 and text.rstrip().endswith("[DONE]")
    pieces = [one for one in widget.sent if one["id"] == "2" and "text" in one]
    assert len(pieces) > 3  # it streams
    ask(widget, "3", "POST", "/v1/chat/completions", {**body, "steering": "angr=1"})
    status, text = wait(widget.sent, "3")
    assert status == 400 and "anger" in json.loads(text)["error"]["message"]


def test_a_reply_that_is_cancelled_makes_room(widget: Any) -> None:
    body = {
        "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 200, "temperature": 0,
        "stream": True, "ignore_eos": True,
    }  # fmt: skip
    ask(widget, "long", "POST", "/v1/chat/completions", body)
    deadline = time.monotonic() + 60
    while not any(one["id"] == "long" and "text" in one for one in list(widget.sent)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    widget._handle_custom_msg({"id": "long", "cancel": True}, [])
    _, text = wait(widget.sent, "long")
    assert "[DONE]" not in text
    ask(widget, "after", "GET", "/affectlens/play/about")
    assert wait(widget.sent, "after")[0] == 200


def test_the_last_spec_is_a_python_object(widget: Any, tiny_model: Any) -> None:
    assert widget._settings["columns"][0]["weights"] == {"anger": 0.5}
    assert widget._settings["prompt"] == "Hello"
    asked = full_pack(tiny_model()).resolve("anger=0.5;mode=residual")
    assert widget.spec == asked  # no browser has shown it yet
    widget.spec_text = "fear=0.3;mode=residual"
    assert isinstance(widget.spec, SteeringSpec)
    assert widget.spec == full_pack(tiny_model()).resolve("fear=0.3;mode=residual")


def test_what_does_not_fit_is_refused(tiny_model: Any) -> None:
    with pytest.raises(MismatchError):
        play(tiny_model(seed=4), full_pack(tiny_model()))
    with pytest.raises(Exception, match="Unknown emotion 'angr'"):
        play(tiny_model(), full_pack(tiny_model()), "angr=1")
    with pytest.raises(DataError, match="recommended doses"):
        play(tiny_model(), full_pack(tiny_model()), "anger=1;unit=natural")


def test_one_module_is_all_modules() -> None:
    modules = {n: c.decode() for n, c in static_files().items() if n.endswith(".js")}
    named: dict[str, str] = {}
    declared = re.compile(
        r"^(?:export )?(?:async )?(?:function\*?|class|const|let) (\w+)", re.MULTILINE
    )
    for file, text in modules.items():
        if file == "main.js":
            continue
        for name in declared.findall(text):
            assert name not in named, f"{name} is in {file} and {named[name]}"
            named[name] = file
    made = bundled("widget.js")
    assert not re.search(r"^import ", made, re.MULTILINE)
    assert made.count("export ") == 1 and "export default { render };" in made
    for file, text in modules.items():
        if file not in ("main.js", "widget.js"):
            assert text.splitlines()[0] in made, f"{file} is left out"


@pytest.mark.skipif(BROWSER is None, reason="no browser: install chromium")
def test_the_module_runs_in_a_browser_against_the_kernel(widget: Any, tmp_path: Path) -> None:
    """anywidget's model, played by a few lines: the rest is what a notebook loads."""
    from playwright.sync_api import sync_playwright

    (tmp_path / "widget.js").write_text(bundled("widget.js"))
    with sync_playwright() as playing:
        browser = playing.chromium.launch(
            executable_path=BROWSER, args=[*FLAGS, "--allow-file-access-from-files"]
        )
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda one: complaints.append(one.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))

        def kernel(message: dict[str, Any]) -> list[Any]:
            """A message to the kernel, and its answers at once."""
            if message.get("cancel"):
                widget._handle_custom_msg(message, [])
                return []
            widget._handle_custom_msg(message, [])
            wait(widget.sent, message["id"])
            return [one for one in widget.sent if one["id"] == message["id"]]

        page.expose_function("kernel", kernel)
        (tmp_path / "page.html").write_text(
            "<!doctype html><meta charset=utf-8><link rel=icon href=data:,><div id=out></div>"
        )
        page.goto((tmp_path / "page.html").as_uri())
        page.evaluate(
            """async (source) => {
              const url = URL.createObjectURL(new Blob([source], {type: 'text/javascript'}));
              const widget = (await import(url)).default;
              const heard = [];
              globalThis.kept = {};
              const model = {
                get: (name) => name === '_settings' ? {prompt: 'Hello there', tokens: 8} : null,
                set: (name, value) => { globalThis.kept[name] = value; },
                save_changes() {},
                on: (_, call) => heard.push(call),
                async send(message) {
                  for (const one of await kernel(message)) heard.forEach((call) => call(one));
                },
              };
              await widget.render({model, el: document.querySelector('#out')});
            }""",
            bundled("widget.js"),
        )
        page.get_by_role("button", name="Send").click()
        page.wait_for_function(
            "() => [...document.querySelectorAll('.al-facts')].every("
            "(one) => one.textContent.includes('perplexity'))"
        )
        assert page.evaluate("() => kept.spec_text") == "anger=1"
        assert page.get_by_role("button", name="Copy link").count() == 0
        assert page.get_by_role("button", name="Copy curl").count() == 0
        browser.close()
        assert complaints == []


def test_a_text_is_shown_in_colours(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model()
    pack = full_pack(model)
    text = "The train was <cancelled> & I am sad."
    found = read_text(model, pack, text)
    ids = [int(one) for one in model.tokenizer(text)["input_ids"]]
    assert "".join(found.tokens) == model.tokenizer.decode(ids)
    assert found.layer == 2
    readout = pack.readout
    assert readout is not None
    by_hand = _last_block(model, ids) @ readout.weights[0].T + readout.bias[0]
    assert found.shares.numpy() == pytest.approx(by_hand.softmax(-1).numpy(), abs=1e-4)
    pack.save(tmp_path / "pack.safetensors")
    again = read_text(model, tmp_path / "pack.safetensors", text)
    assert again.shares.equal(found.shares)
    shown = found._repr_html_()
    assert "&lt;" in shown and "<cancelled>" not in shown and "&amp;" in shown
    assert shown.count('class="al-token ') == len(ids) + 6
    assert found.table_rows()[0]["token"] == found.tokens[0]
    assert "tokens=" in repr(found)
    with pytest.raises(DataError, match="holds no probes"):
        read_text(model, without_readings(pack), text)
    with pytest.raises(DataError, match="0 tokens"):
        read_text(model, pack, "")


def _last_block(model: Any, ids: list[int]) -> Any:
    import torch

    seen: list[Any] = []
    handle = model.anatomy.blocks[2].block.register_forward_hook(
        lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    try:
        with torch.no_grad():
            model.hf(input_ids=torch.tensor([ids]))
    finally:
        handle.remove()
    return seen[0][0]
