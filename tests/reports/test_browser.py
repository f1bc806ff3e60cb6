"""The page in a real browser: every figure drawn, nothing refused, nothing too wide."""

from __future__ import annotations

import html as escaping
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from sample import sample

from affectlens.plotting import style
from affectlens.plotting.arms import arm_title
from affectlens.reports import render

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"no browser to open the page in: install one of {', '.join(NAMES)}"
)


def open_page(html: str, folder: Path) -> tuple[str, list[str]]:
    """The document after its scripts ran, and what the console said."""
    source = folder / "page.html"
    source.write_text(html, encoding="utf-8")
    done = subprocess.run(
        [
            str(BROWSER),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1280,900",
            "--virtual-time-budget=30000",
            "--enable-logging=stderr",
            "--dump-dom",
            source.as_uri(),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=900,
        check=False,
    )
    assert done.stdout, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_every_figure_is_drawn_and_the_console_is_silent(tmp_path: Path):
    html = render(sample())
    wanted = html.count('<div class="plot"')
    document, console = open_page(html, tmp_path)
    assert console == []
    assert wanted == 31
    assert f'data-drawn="{wanted}"' in document
    boxes = re.split(r'<div class="plot ', document)[1:]
    assert len(boxes) == wanted
    assert all('<svg class="main-svg"' in box and "plot-container" in box for box in boxes)
    # A line chart has lines, a heat map its picture.
    assert sum('class="js-line"' in box for box in boxes) >= 5
    assert sum("<image" in box for box in boxes) >= 15
    ink = tuple(int(style.INK[i : i + 2], 16) for i in (1, 3, 5))
    assert f"stroke: rgb{ink}" in boxes[0]


def test_the_dark_theme_recolours_the_figures(tmp_path: Path):
    html = render(sample()).replace('<html lang="en">', '<html lang="en" data-theme="dark">')
    document, console = open_page(html, tmp_path)
    assert console == []
    first = re.split(r'<div class="plot ', document)[1]
    light, dark = (
        tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (style.INK, style.INK_DARK)
    )
    assert f"rgb{dark}" in first and f"rgb{light}" not in first


def test_columns_sort_and_the_theme_turns(tmp_path: Path):
    html = re.sub(r"<meta http-equiv[^>]*>", "", render(sample()))
    clicks = (
        "<script>const head = [...document.querySelectorAll('th button')]"
        ".find(b => b.textContent === 'perplexity ratio');"
        "const order = () => [...head.closest('table').tBodies[0].rows]"
        ".map(r => r.cells[0].textContent).join(' ');"
        "const theme = document.querySelector('.theme'); theme.click(); theme.click();"
        "head.click(); const down = order(); head.click();"
        "document.body.dataset.order = down + ' / ' + order();</script></body>"
    )
    document, console = open_page(html.replace("</body>", clicks), tmp_path)
    assert console == []
    ratios = {arm_title(name): arm.perplexity_ratio for name, arm in sample().arms.items()}
    ordered = sorted(ratios, key=lambda name: -ratios[name])
    down, up = " ".join(ordered), " ".join(reversed(ordered))
    assert f'data-order="{down} / {up}"' in document
    assert 'data-theme="dark"' in document[:400] and ">Theme: dark<" in document


def test_a_phone_shows_the_page_without_sideways_scrolling(tmp_path: Path):
    inner = re.sub(r"<meta http-equiv[^>]*>", "", render(sample()))
    outer = (
        '<!DOCTYPE html><html lang="en"><body><iframe style="width:420px;height:900px;border:0" '
        f'srcdoc="{escaping.escape(inner)}"></iframe><script>'
        "const frame = document.querySelector('iframe');"
        "const look = () => {"
        " const root = frame.contentDocument && frame.contentDocument.documentElement;"
        " if (!root || !root.dataset.drawn) return setTimeout(look, 50);"
        " document.body.dataset.widths = [root.clientWidth, root.scrollWidth,"
        "  ...[...root.querySelectorAll('.plot .main-svg')].map(s => s.parentNode.scrollWidth -"
        "  s.closest('.plot').clientWidth).filter(over => over > 1)].join(' ');"
        "}; look();</script></body></html>"
    )
    document, _ = open_page(outer, tmp_path)
    found = re.search(r'<body data-widths="([\d ]+)"', document)
    assert found, "the page did not finish in the frame"
    width, content, *too_wide = map(int, found[1].split())
    assert 400 <= width <= 420, "the frame is not as narrow as a phone"
    assert content == width and not too_wide
