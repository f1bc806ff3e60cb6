"""The page in a real browser, before a tiny model: what a person does, and what comes of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest

from affectlens.core import EMOTIONS
from affectlens.plotting import style
from affectlens.serving.playground.plane import plane_of
from affectlens.serving.playground.reading import KNOWN
from affectlens.steering import SteeringSpec
from affectlens.steering.affect_targets import mixture_for
from tests.serving.playground.playing import (
    BROWSER,
    FLAGS,
    full_pack,
    served,
    without_readings,
)

pytest.importorskip("playwright", reason="playwright drives the browser: install the extra dev")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser: install chromium")

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def address(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = tiny_model()
    packs = {"demo": full_pack(model), "bare": without_readings(full_pack(model))}
    with served(model, tmp_path_factory.mktemp("packs"), **packs) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """``opened(hash, **options)`` -> a page that is ready; its console has to be silent."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def open_(hash_: str = "", url: str = address, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": DESKTOP, **options})
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("console", lambda one: complaints.append(f"{one.type}: {one.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda one: None if one.url.startswith((url, "data:", "blob:"))
            else complaints.append(f"asks {one.url}"),
        )  # fmt: skip
        page.goto(f"{url}/play{hash_}")
        page.wait_for_selector("html[data-ready]")
        return page

    open_.complaints = complaints  # pyright: ignore[reportFunctionMemberAccess]
    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


def finished(page: Any) -> None:
    """Until nothing is being written or looked at."""
    page.wait_for_function(
        "() => document.querySelectorAll('.al-column .al-token').length > 0"
        " && !document.querySelector('[aria-busy]')"
    )


def send(page: Any, tokens: int = 12) -> None:
    page.get_by_label("Tokens", exact=True).fill(str(tokens))
    page.get_by_label("Tokens", exact=True).press("Tab")
    page.get_by_role("button", name="Send").click()
    finished(page)
    page.wait_for_function("() => document.querySelector('.al-facts').textContent.match(/perpl/)")


def replies(page: Any) -> list[str]:
    return [
        "".join(column.locator(".al-tokens").last.locator(".al-token").all_inner_texts())
        for column in page.locator(".al-column").all()
    ]


def test_a_reply_is_written_steered_beside_unsteered(opened: Any, address: str) -> None:
    page = opened()
    send(page)
    plain, steered = replies(page)
    assert plain != steered
    import httpx

    for spec, shown in (("none", plain), ("anger=1", steered)):
        asked = page.get_by_label("What you say").input_value()
        body = {
            "model": "tiny", "messages": [{"role": "user", "content": asked}],
            "max_tokens": 12, "temperature": 0, "seed": 0, "repetition_penalty": 1.1,
            "steering": spec,
        }  # fmt: skip
        said = httpx.post(f"{address}/v1/chat/completions", json=body).json()
        text = said["choices"][0]["message"]["content"]
        assert shown.replace("\u200b", "") == text
    facts = page.locator(".al-facts").all_inner_texts()
    assert re.search(r"perplexity \d", facts[0]) and re.search(r"perplexity ratio \d", facts[1])


def test_a_slider_changes_the_text(opened: Any) -> None:
    page = opened()
    send(page)
    before = replies(page)
    page.get_by_label("again as I turn").check()
    slider = page.get_by_label("happiness", exact=True)
    slider.focus()
    for _ in range(20):
        slider.press("ArrowRight")
    page.wait_for_function(
        "() => document.querySelectorAll('.al-facts')[1].textContent.includes('happiness=1')"
        " && document.querySelectorAll('.al-facts')[1].textContent.includes('ratio')"
        " && !document.querySelector('[aria-busy]')"
    )
    page.wait_for_timeout(400)
    finished(page)
    after = replies(page)
    assert after[0] == before[0] and after[1] != before[1]


def test_a_slider_repaints_at_once(opened: Any) -> None:
    page = opened()
    took = page.evaluate(
        """async () => {
          const input = document.querySelector('.al-slider input');
          const times = [];
          for (let k = 0; k < 20; k += 1) {
            const start = performance.now();
            input.value = k / 20;
            input.dispatchEvent(new Event('input', {bubbles: true}));
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            times.push(performance.now() - start);
          }
          return times.sort((a, b) => a - b)[10];
        }"""
    )
    assert took < 100


def test_a_token_opens_by_keys_and_tells_all(opened: Any) -> None:
    page = opened("#steer=" + "anger%3D1.5")
    send(page)
    strip = page.locator(".al-column").nth(1).locator(".al-tokens")
    strip.locator(".al-token").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => document.activeElement.dataset.k") == "2"
    page.keyboard.press("Enter")
    box = page.locator(".al-inspector")
    box.get_by_text("KL divergence").wait_for()
    assert box.locator(".al-map").count() == 2
    rows = box.locator(".al-map").first.locator("tbody tr")
    assert rows.count() == 7 and rows.first.locator("td").count() == 3
    assert box.locator("caption").all_inner_texts() == [
        "Promoted", "Suppressed", "Added at this token"
    ]  # fmt: skip
    total = box.get_by_role("row", name="all together").locator("td").all_inner_texts()
    box.get_by_label("Emotion whose writers are shown").select_option("fear")
    page.wait_for_function(
        "(old) => { const row = [...document.querySelectorAll('.al-inspector tfoot tr')].at(-1);"
        " return row && row.textContent !== old; }",
        arg="all together" + "".join(total),
    )
    page.keyboard.press("Escape")
    assert box.is_hidden()
    assert page.evaluate("() => document.activeElement.dataset.k") == "2"
    page.get_by_label("What colours tokens").select_option("change")
    assert strip.locator(".al-change").count() == strip.locator(".al-token").count()


def test_a_strip_drawn_anew_keeps_the_focus_and_the_open_token(opened: Any) -> None:
    page = opened("#steer=anger%3D1")
    send(page)
    strip = page.locator(".al-column").nth(1).locator(".al-tokens")
    strip.locator(".al-token").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator(".al-inspector").get_by_text("KL divergence").wait_for()
    strip.locator(".al-token").nth(1).focus()
    page.evaluate(
        """() => {
          const select = document.querySelector('[aria-label="What colours tokens"]');
          select.value = 'change';
          select.dispatchEvent(new Event('change'));
        }"""
    )
    assert strip.locator(".al-change").count() == strip.locator(".al-token").count()
    assert page.evaluate("() => document.activeElement.dataset.k") == "1"
    assert strip.locator("[data-open]").get_attribute("data-k") == "1"


def test_tokens_are_told_apart_without_colour(opened: Any) -> None:
    page = opened("#steer=anger%3D1&tokens=60")
    page.get_by_role("button", name="Send").click()
    finished(page)
    kinds = page.evaluate(
        """() => [...document.querySelectorAll('.al-legend .al-token')]
             .map((one) => { const s = getComputedStyle(one);
                return s.textDecorationStyle + s.textDecorationLine; })"""
    )
    assert len(kinds) == 6 and len(set(kinds)) == 6
    labels = page.locator(".al-column .al-token[aria-label]").all()
    assert labels and all(
        re.search(r", reads (\w+) ", one.get_attribute("aria-label") or "") for one in labels[:5]
    )


def test_the_pad_gives_the_mixture_of_the_tested_function(opened: Any) -> None:
    page = opened("#steer=none")
    pad = page.locator(".al-pad")
    box = pad.bounding_box()
    for valence, arousal in ((0.5, 0.4), (-0.5, 0.5), (-0.4, -0.2), (0.6, -0.6)):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(
            box["x"] + box["width"] * (valence + 1) / 2,
            box["y"] + box["height"] * (1 - arousal) / 2,
            steps=4,
        )
        page.mouse.up()
        handle = page.get_by_role("slider", name="Valence and arousal")
        told = re.match(r"valence (\S+), arousal ([^:]+):", handle.get_attribute("aria-valuetext"))
        assert told
        at = [float(one.replace("\u2212", "-")) for one in told.groups()]
        assert at == pytest.approx([valence, arousal], abs=0.02)
        spec = page.locator(".al-facts").nth(1).inner_text().split(" · ")[0]
        found = SteeringSpec.parse(spec).weights
        wanted = mixture_for(*at)
        for emotion in EMOTIONS:
            assert found.get(emotion, 0) == pytest.approx(wanted.get(emotion, 0), abs=0.012)
    page.get_by_role("slider", name="Valence and arousal").press("Home")
    assert page.locator(".al-facts").nth(1).inner_text().startswith("none")
    page.get_by_role("slider", name="Valence and arousal").press("Shift+ArrowRight")
    assert "happiness" in page.locator(".al-facts").nth(1).inner_text()


def test_the_modules_mixture_is_that_of_requests(opened: Any) -> None:
    page = opened()
    points = [(v / 4, a / 4) for v in range(-4, 5) for a in range(-4, 5)]
    for labels in (EMOTIONS, ("happiness", "joy", "sadness", "hope"), ("anger",)):
        plane = plane_of(labels)
        assert plane is not None
        found = page.evaluate(
            """async ([points, targets]) => {
              const { mixtureFor } = await import('/play/static/mixture.js');
              return targets.map((target) => mixtureFor(points, target));
            }""",
            [plane["points"], points],
        )
        for point, one in zip(points, found, strict=True):
            assert one == pytest.approx(mixture_for(*point, emotions=labels), abs=1e-4)


def test_a_link_brings_everything_back_and_nonsense_is_refused(opened: Any) -> None:
    given = [
        ("pack", "demo"), ("prompt", "It’s a “test” & more?"), ("system", "Be kind."),
        ("tokens", "9"), ("temperature", "0.7"), ("seed", "5"),
        ("steer", "anger=0.5,fear=-0.25;mode=residual;gate=sadness>0.4"), ("steer", "joy=0"),
    ]  # fmt: skip
    given[-1] = ("steer", "happiness=1;positions=generated;operator=add_keep_norm")
    page = opened("#" + urlencode(given))
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("The link copied.").wait_for()
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert sorted(parse_qsl(link.partition("#")[2])) == sorted(given)
    assert page.get_by_label("What you say").input_value() == "It’s a “test” & more?"
    for hash_, sentence in (
        ("steer=angr%3D1", "Unknown emotion “angr”; there are: anger"),
        ("steer=anger%3Dlots", "no strength"),
        ("steer=anger%3D999", "must lie between"),
        ("steer=anger%3D1%3Bmode%3Dsideways", "Unknown mode “sideways”"),
        ("steer=anger%3D1%3Bgate%3Dbored%3E0.4", "Unknown condition “bored”"),
        ("steer=anger%3D1%3Bgate%3Dsadness%3E4", "no condition"),
        ("steer=anger%3D1%3Bunit%3Drms", "no setting “unit”"),
        ("seed=1.5", "seed must be a whole number"),
        ("temperature=9", "temperature must be a number from 0 to 2"),
        ("seed=1&seed=2", "seed twice"),
        ("pack=none", "Unknown pack “none”"),
        ("hello=1", "“hello”, which this page does not know"),
        ("&".join(["steer=anger%3D1"] * 7), "there is room for 6"),
    ):
        page = opened("#" + hash_)
        shown = page.locator(".al-main > .al-problem")
        assert sentence in shown.inner_text(), hash_
        assert page.get_by_role("button", name="Send").is_enabled()


def test_the_copied_requests_work(opened: Any, address: str) -> None:
    page = opened(
        "#"
        + urlencode(
            [("prompt", "It's 5 o'clock: \"go\"\n\\ $HOME"), ("tokens", "8"), ("steer", "fear=0.7")]
        )
    )
    page.get_by_role("button", name="Send").click()
    finished(page)
    steered = replies(page)[1].replace("\u200b", "")
    for name in ("curl", "vLLM"):
        page.get_by_role("button", name=f"Copy {name}").click()
        page.get_by_text(f"The request ({name}) copied.").wait_for()
        text = page.evaluate("() => navigator.clipboard.readText()")
        text = text.replace("http://127.0.0.1:8000", address)
        done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["choices"][0]["message"]["content"] == steered, name
    page.get_by_role("button", name="Copy Python").click()
    page.get_by_text("The request (Python) copied.").wait_for()
    text = page.evaluate("() => navigator.clipboard.readText()")
    said: list[str] = []

    class Client:
        """What the snippet needs of the openai client."""

        def __init__(self, base_url: str, api_key: str) -> None:
            self.base_url, self.chat = base_url, self
            self.completions = self

        def create(self, extra_body: dict[str, Any], **body: Any) -> Any:
            from types import SimpleNamespace as Plain

            import httpx

            answer = httpx.post(f"{self.base_url}/chat/completions", json={**body, **extra_body})
            content = answer.json()["choices"][0]["message"]["content"]
            return Plain(choices=[Plain(message=Plain(content=content))])

    code = text.replace("from openai import OpenAI", "").replace(":8000", ":8000")
    exec(code, {"OpenAI": Client, "print": said.append})
    assert said == [steered]


def test_up_to_six_side_by_side_and_a_conversation(opened: Any) -> None:
    page = opened("#tokens=6")
    page.get_by_label("Preset", exact=True).select_option(label="All emotions side by side")
    assert page.locator(".al-column").count() == 7
    page.get_by_role("button", name="Send").click()
    finished(page)
    first = replies(page)
    assert len(set(first)) > 3
    page.get_by_label("What you say").fill("And now?")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("() => document.querySelectorAll('.al-tokens').length === 14")
    finished(page)
    page.wait_for_function("() => !document.querySelector('[aria-busy]')")
    assert all(replies(page))
    page.get_by_role("button", name="Remove Steered 6").click()
    assert page.locator(".al-column").count() == 6
    page.get_by_role("button", name="New conversation").click()
    assert page.locator(".al-token[data-k]").count() == 0
    page.get_by_role("button", name="+ column").click()
    assert page.locator(".al-column").count() == 7


def test_a_reply_can_be_stopped_and_the_next_one_written(opened: Any) -> None:
    page = opened("#tokens=200")
    page.get_by_role("button", name="Send").click()
    page.wait_for_selector(".al-column [data-k]")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_function("() => !document.querySelector('[aria-busy]')")
    page.get_by_role("button", name="Again").click()
    finished(page)
    assert all(replies(page))


def test_warnings_presets_packs_and_downloads(opened: Any, tmp_path: Path) -> None:
    page = opened("#steer=anger%3D1")
    assert page.locator(".al-warnings").inner_text() == ""
    page.get_by_label("anger", exact=True).focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert "anger 1.3 is beyond 1" in page.locator(".al-warnings").inner_text()
    page.get_by_text("Save or delete").click()
    page.get_by_label("Name of the preset to save").fill("mine")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("button", name="Set anger to 0").click()
    assert page.locator(".al-facts").nth(1).inner_text().startswith("none")
    page.get_by_label("Preset", exact=True).select_option(label="mine")
    assert page.locator(".al-facts").nth(1).inner_text().startswith("anger=1.3")
    send(page, 5)
    with page.expect_download() as download:
        page.get_by_role("button", name="Texts and numbers").click()
    download.value.save_as(tmp_path / "texts.json")
    kept = json.loads((tmp_path / "texts.json").read_text())
    assert kept["columns"][1]["steering"] == "anger=1.3"
    assert kept["columns"][1]["turns"][0]["reply"] == replies(page)[1].replace("\u200b", "")
    page.get_by_label("Style and vectors").select_option("bare")
    assert page.get_by_text("steer only where").count() == 0
    assert page.get_by_role("radio", name="residual").count() == 0
    page.get_by_role("button", name="Send").click()
    finished(page)
    assert all(replies(page))


def test_a_condition_is_part_of_the_request(opened: Any) -> None:
    page = opened("#steer=anger%3D1%3Bmode%3Dresidual&tokens=8")
    page.get_by_label("steer only where the text reads").check()
    page.get_by_label("Emotion of the condition").select_option("sadness")
    page.get_by_label("Probability").fill("0.99")
    page.get_by_label("Probability").press("Tab")
    assert "gate=sadness>0.99" in page.locator(".al-facts").nth(1).inner_text()
    page.get_by_role("button", name="Send").click()
    finished(page)
    shut = replies(page)
    assert shut[0] == shut[1]
    page.get_by_label("Probability").fill("7")
    page.get_by_label("Probability").press("Tab")
    assert page.get_by_label("Probability").get_attribute("aria-invalid") == "true"


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_is_found_by_axe(opened: Any, size: dict[str, int], scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened("#tokens=8", viewport=size, color_scheme=scheme, bypass_csp=True)
    details = page.locator("details.al-settings")
    if details.get_attribute("open") is None:
        details.locator("> summary").click()
    page.locator("details", has_text="Where and how").last.locator("> summary").click()
    send(page, 8)
    page.locator(".al-column").nth(1).locator("[data-k]").nth(1).click()
    page.get_by_text("KL divergence").wait_for()
    found = Axe().run(page).response["violations"]
    serious = [
        (one["id"], one["nodes"][0]["html"], one["nodes"][0].get("failureSummary"))
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
    wide = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]


def test_colours_are_those_of_figures() -> None:
    from affectlens.serving.playground.page import static_files

    css = static_files()["play.css"].decode()
    light, dark = css.partition("@media (prefers-color-scheme: dark)")[::2]
    for part in (
        dark.partition(":root[data-theme")[0],
        dark.partition(':root[data-theme="dark"]')[2],
    ):
        for label in KNOWN:
            colour = style.emotion_colour(label)
            assert f"--{label}: {colour};" in light
            assert f"--{label}: {style.DARK[colour]};" in part
        for name, value in (("page", style.PAGE), ("ink", style.INK), ("muted", style.MUTED)):
            assert f"--{name}: {value};" in light
            assert f"--{name}: {style.DARK[value]};" in part
