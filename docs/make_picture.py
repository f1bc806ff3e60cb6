"""Compose the picture of the README from a run: text, directions, circuit, steered reply.

    python docs/make_picture.py RUN/report.json --out docs/picture.png

The page is put together from the report's own data and figures and photographed by a local
Chromium; nothing is fetched. ``--dark`` makes the variant for dark pages, ``--html`` keeps the
page.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens import plotting as figures
from affectlens.core.errors import AffectLensError, ArtefactError
from affectlens.plotting import style
from affectlens.reports import Example, ReportData, load
from affectlens.reports.markup import dumps, finite, number, percent, text

if TYPE_CHECKING:
    import plotly.graph_objects as go

WIDTH, HEIGHT = 1480, 560
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SHOWN = ("anger", "fear", "happiness", "sadness")

CSS = (
    f"""
* {{ box-sizing: border-box; margin: 0; }}
body {{
  width: {WIDTH}px; height: {HEIGHT}px; overflow: hidden;
  background: var(--page); color: var(--ink); font: 15px/1.42 {style.FONT};
}}
"""
    + """
.row {
  display: grid; grid-template: 100% / 318px 34px 306px 34px 318px 34px 1fr;
  height: 100%; padding: 26px 28px 22px;
}
.step { display: flex; flex-direction: column; min-width: 0; min-height: 0; }
.step h2 { font-size: 20px; letter-spacing: -.01em; }
.step h2 span { color: var(--muted); font-weight: 400; margin-right: 7px; }
.step .sub { color: var(--muted); font-size: 14px; margin-bottom: 16px; white-space: nowrap; }
.step .body { flex: 1; min-height: 0; overflow: hidden; }
.step .foot {
  color: var(--muted); font-size: 14px; line-height: 24px; min-height: 34px;
  margin-top: 8px; padding-top: 9px; border-top: 1px solid var(--line);
}
.foot b { color: var(--ink); font-size: 16px; font-variant-numeric: tabular-nums; }
.arrow { display: grid; place-items: center; color: var(--muted); font-size: 24px; }
.said {
  border-left: 4px solid var(--c); padding: 1px 0 1px 10px; margin-bottom: 10px;
  font-size: 13.5px; line-height: 1.36;
}
.said b { color: var(--c); display: block; font-size: 12.5px; line-height: 1.3; }
.said span, .user span {
  display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical; overflow: hidden;
}
.user {
  background: var(--line); border-radius: 12px 12px 12px 3px;
  padding: 8px 12px; font-size: 14px; margin-bottom: 11px;
}
.plain { --c: var(--muted); color: var(--muted); }
"""
)

SCRIPT = """
const drawn = JSON.parse(document.getElementById("figures").textContent);
for (const [id, { data, layout }] of Object.entries(drawn)) {
  const { clientWidth: width, clientHeight: height } = document.getElementById(id);
  Plotly.newPlot(id, data, { ...layout, width, height }, { staticPlot: true });
}
"""


def find_browser() -> str | None:
    """Path of a Chromium on this machine, or ``None``."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def circuit_dots(data: ReportData) -> go.Figure:
    """Neurons of each emotion's circuit by layer, a dot as large as their number."""
    import plotly.graph_objects as go

    circuit = data.circuit
    if circuit is None or circuit.counts is None:
        raise ArtefactError("This report has no circuit; run the circuit stage first.")
    counts = np.asarray(circuit.counts, dtype=float).sum(axis=2)
    largest = counts.max() or 1.0
    figure = go.Figure()
    for index, label in enumerate(circuit.emotions):
        figure.add_scatter(
            x=[label] * len(circuit.layers),
            y=list(circuit.layers),
            mode="markers",
            marker={
                "color": style.emotion_colour(label, index),
                "size": (2 + 11 * counts[index] / largest).tolist(),
                "opacity": 1,
                "line": {"width": 0},
            },
        )
    figure.update_xaxes(**style.categories(tickangle=-40))
    figure.update_yaxes(**style.axis("layer", showline=False))
    return style.finish(figure, 400)


def corpus_example() -> dict[str, str]:
    """One scenario of the shipped corpus in every tone."""
    folder = files("affectlens.datasets") / "authored"
    rows = [
        json.loads(line)
        for line in (folder / "home.replies.jsonl").read_text("utf-8").splitlines()
        if line.strip()
    ]
    return {row["emotion"]: row["text"] for row in rows if row["group"] == rows[0]["group"]}


def _said(label: str, words: str) -> str:
    colour = style.css_colour(label)
    return (
        f'<div class="said" style="--c:{colour}"><b>{text(label)}</b>'
        f"<span>{text(words)}</span></div>"
    )


def _best_example(data: ReportData, arm: str) -> Example:
    """The example in which the most shown emotions were heard as meant; first wins a tie."""

    def hits(example: Example) -> int:
        replies = [example.reply(emotion, arm) for emotion in SHOWN]
        return sum(r is not None and (r.judged == e) for r, e in zip(replies, SHOWN, strict=True))

    if not data.examples:
        raise ArtefactError("This report has no examples; run the evaluate stage first.")
    return max(data.examples, key=hits)


def _steered(data: ReportData, arm: str) -> tuple[str, str]:
    example = _best_example(data, arm)
    body = f'<div class="user"><span>{text(example.prompt)}</span></div>'
    if example.unsteered is not None:
        body += (
            '<div class="said plain"><b>unsteered</b>'
            f"<span>{text(example.unsteered.reply.text)}</span></div>"
        )
    for emotion in SHOWN:
        heard = example.reply(emotion, arm)
        if heard is not None:
            body += _said(emotion, heard.reply.text)
    arms = data.arms
    foot = ""
    if arm in arms:
        foot = f"heard as meant <b>{percent(arms[arm].accuracy)}</b>"
        if finite(masked := arms[arm].masked_accuracy):
            foot += f", feeling words masked <b>{percent(masked)}</b>"
        if "prompted" in arms:
            foot += f" (asked in words {percent(arms['prompted'].accuracy)})"
    return body, foot


def compose(data: ReportData, *, arm: str = "circuit", dark: bool = False) -> str:
    """The page to photograph.

    Raises:
        ArtefactError: If the report lacks the map, the circuit or the examples.
    """
    from plotly.offline import get_plotlyjs

    if data.emotion_map is None:
        raise ArtefactError("This report has no emotion map; run the directions stage first.")
    plots = {
        "map": figures.emotion_map(data.emotion_map)
        .update_xaxes(title=None)
        .update_yaxes(title=None),
        "units": circuit_dots(data),
    }
    drawn = {name: json.loads(str(figure.to_json())) for name, figure in plots.items()}
    if dark:
        drawn = _recolour(drawn)
    said = corpus_example()
    texts = "".join(_said(emotion, said[emotion]) for emotion in data.emotion_map.emotions)
    replies, heard = _steered(data, arm)
    read = ""
    if data.probes is not None:
        best = float(np.asarray(data.probes.accuracy, dtype=float)[data.probes.best])
        read = (
            f"read back from layer {data.probes.layers[data.probes.best]}: <b>{percent(best)}</b>"
        )
    stable = ""
    if data.directions is not None and data.directions.split_half is not None:
        halves = np.asarray(data.directions.split_half, dtype=float)
        stable = (
            f"two halves of the data agree: <b>{number(float(np.nanmean(halves, 1).max()))}</b>"
        )
    assert data.circuit is not None
    units = np.asarray(data.circuit.counts).sum() / len(data.circuit.emotions)
    steps = (
        ("Text", "One event, answered in six tones", f'<div class="body">{texts}</div>', read),
        (
            "Directions",
            "What is left when the event is averaged out",
            '<div class="body" id="map"></div>',
            stable,
        ),
        (
            "Circuit",
            "The neurons and heads that write each emotion",
            '<div class="body" id="units"></div>',
            f"<b>{units:.0f}</b> units per emotion, folded into vectors",
        ),
        (
            "Steered reply",
            "The same prompt, the emotion turned like a dial",
            f'<div class="body">{replies}</div>',
            heard,
        ),
    )
    columns = '<div class="arrow">→</div>'.join(
        f'<div class="step"><h2><span>{index}</span>{title}</h2><p class="sub">{sub}</p>{body}'
        f'<p class="foot">{foot}</p></div>'
        for index, (title, sub, body, foot) in enumerate(steps, start=1)
    )
    blob = dumps(drawn).replace("<", "\\u003c")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>affectlens</title>'
        f"<style>:root{{{style.css_variables(dark=dark)}}}{CSS}</style></head><body>"
        f'<div class="row">{columns}</div>'
        f'<script type="application/json" id="figures">{blob}</script>'
        f"<script>{get_plotlyjs()}</script><script>{SCRIPT}</script></body></html>"
    )


def _recolour(value: Any) -> Any:
    if isinstance(value, str):
        return style.DARK.get(value, value)
    if isinstance(value, list):
        return [_recolour(item) for item in value]
    if isinstance(value, dict):
        return {key: _recolour(item) for key, item in value.items()}
    return value


def photograph(page: str, target: Path) -> None:
    """Write a PNG of the page, twice as many pixels as its CSS size.

    Raises:
        ArtefactError: If there is no Chromium, or it wrote nothing.
    """
    browser = find_browser()
    if browser is None:
        raise ArtefactError("Making the picture needs Chromium; install it and run this again.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source, shot = Path(folder) / "picture.html", Path(folder) / "picture.png"
        source.write_text(page, encoding="utf-8")
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
                "--hide-scrollbars",
                f"--user-data-dir={folder}/profile",
                f"--window-size={WIDTH},{HEIGHT}",
                "--force-device-scale-factor=2",
                "--virtual-time-budget=15000",
                f"--screenshot={shot}",
                source.as_uri(),
            ],
            check=False,
            capture_output=True,
            timeout=180,
        )
        if not shot.is_file():
            raise ArtefactError(f"{browser} took no picture; try --html and open the page.")
        shutil.copyfile(shot, target)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compose the README's picture from a run.")
    parser.add_argument("report", type=Path, help="report.json of a run")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("picture.png"))
    parser.add_argument("--arm", default="circuit", help="whose replies to show")
    parser.add_argument("--dark", action="store_true", help="for dark pages")
    parser.add_argument("--html", type=Path, help="also keep the page here")
    options = parser.parse_args(arguments)
    try:
        page = compose(load(options.report), arm=options.arm, dark=options.dark)
        if options.html:
            options.html.write_text(page, encoding="utf-8")
        photograph(page, options.out)
    except AffectLensError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
