"""One self-contained HTML file per run: no network, no other file, no stored preference."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from affectlens.core.artefact import write_text
from affectlens.plotting import style
from affectlens.reports.data import ReportData
from affectlens.reports.markup import (
    dumps,
    duration,
    finite,
    json_block,
    memory,
    number,
    percent,
    text,
)
from affectlens.reports.sections import SECTIONS

_METHOD: Sequence[tuple[str, str]] = (
    (
        "directions",
        "Directions are group-centred: every scenario is seen under every emotion and its own "
        "mean is taken away first, so that what is left is the emotion and not the subject "
        "(unless a note on the texts above says that they do not come in such groups).",
    ),
    (
        "",
        "All directions live in the raw residual stream, before any norm; layers are block "
        "indices from 0.",
    ),
    (
        "circuit",
        "A circuit shifts its neurons and heads by their mean difference under the emotion; "
        "this is the same as adding two constant vectors per layer, which is what a steering "
        "pack stores.",
    ),
    (
        "arms",
        "Strengths are chosen on tuning scenarios, for every arm under the same limit of "
        "fluency, and reported once on test scenarios. Intervals are 95 % bootstrap intervals "
        "over scenarios.",
    ),
    (
        "arms",
        "All arms answer the same prompts with the same decoding. Its repetition penalty stands "
        "above; the default of Hugging Face is 1.0, none.",
    ),
    (
        "",
        "All of it describes one model, one corpus and one set of judges. An emotion that can "
        "be read or written in a model says nothing about whether anything is felt.",
    ),
)
"""Part of `ReportData` that a line is about ("" for all), and the line."""


def _method(data: ReportData) -> str:
    lines = [line for part, line in _METHOD if not part or getattr(data, part)]
    return f"<h2>Method and limits</h2><ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


@cache
def _plotly_script() -> str:
    from plotly.offline import get_plotlyjs

    # The browser hashes what it parsed, and parsing turns every line end into \n.
    return get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")


def _static(name: str) -> str:
    folder = files("affectlens.reports") / "static"
    return (folder / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def stylesheet() -> str:
    """The page's CSS, both themes."""
    light, dark = style.css_variables(dark=False), style.css_variables(dark=True)
    return (
        f":root{{{light}}}"
        f"@media (prefers-color-scheme: dark){{:root:not([data-theme='light']){{{dark}}}}}"
        f":root[data-theme='dark']{{{dark}}}\n" + _static("report.css")
    )


def _tiles(data: ReportData) -> str:
    tiles: list[tuple[str, str]] = []
    if data.probes is not None:
        value = float(np.asarray(data.probes.accuracy, dtype=float)[data.probes.best])
        layer = data.probes.layers[data.probes.best]
        tiles.append((percent(value), f"read by a linear probe at layer {layer}"))
    if data.directions is not None and data.directions.split_half is not None:
        halves = np.asarray(data.directions.split_half, dtype=float)
        if np.isfinite(halves).any():
            best = float(np.nanmax(np.nanmean(halves, axis=1)))
            tiles.append((number(best), "split-half cosine of the directions, best layer"))
    if data.circuit is not None and data.circuit.counts is not None:
        units = int(np.asarray(data.circuit.counts).sum()) / max(1, len(data.circuit.emotions))
        tiles.append((f"{units:.0f}", "neurons and heads in a circuit, on average"))
    for name in ("circuit", "residual", "prompted"):
        arm = data.arms.get(name)
        if arm is not None and finite(arm.accuracy):
            cost = (
                f" at perplexity ratio {number(arm.perplexity_ratio, 1)}"
                if finite(arm.perplexity_ratio)
                else ""
            )
            masked = (
                f", {percent(arm.masked_accuracy)} with feeling words masked"
                if finite(arm.masked_accuracy)
                else ""
            )
            tiles.append((percent(arm.accuracy), f"heard as meant, {name}{cost}{masked}"))
    if not tiles:
        return ""
    items = "".join(f"<li><b>{value}</b><span>{label}</span></li>" for value, label in tiles)
    return f'<ul class="tiles">{items}</ul>'


def _facts(data: ReportData) -> str:
    header = data.header

    def line(name: str, value: str) -> str:
        return f"<dt>{name}</dt><dd>{value}</dd>"

    def named(label: str, mark: str) -> str:
        code = f"<code>{text(mark)}</code>" if mark else ""
        return " ".join(part for part in (text(label), code) if part)

    rows = line("model", named(header.model, header.model_fingerprint))
    if header.corpus or header.corpus_fingerprint:
        rows += line("corpus", named(header.corpus, header.corpus_fingerprint))
    rows += "".join(line(text(name), text(value)) for name, value in header.facts.items())
    if header.seconds:
        stages = " · ".join(f"{text(n)} {duration(s)}" for n, s in header.seconds.items())
        rows += line("time", f"{duration(sum(header.seconds.values()))} ({stages})")
    if header.peak_memory:
        rows += line("peak memory", memory(header.peak_memory))
    made = [f"affectlens {text(header.package_version)}"] if header.package_version else []
    made += [text(header.date)] if header.date else []
    if made:
        rows += line("made by", ", ".join(made))
    said = "".join(f"<li>{text(notice)}</li>" for notice in header.notices)
    facts = f'<dl class="facts">{rows}</dl>'
    if said:
        facts += f"<p>About these texts:</p><ul>{said}</ul>"
    return f'<details class="run" open><summary>About this run</summary>{facts}</details>'


def render(data: ReportData) -> str:
    """Write the whole page: figures, tables and examples for whatever the run has.

    Args:
        data: What the run found; parts that are ``None`` or empty are left out.

    Returns:
        HTML with plotly inlined once; a content security policy forbids every request.
    """
    built = [(row, body) for row in SECTIONS.values() if (body := row.build(data))]
    contents = "".join(f'<li><a href="#{row.name}">{row.title}</a></li>' for row, _ in built)
    main = "".join(
        f'<section id="{row.name}"><h2>{row.title}</h2><p>{row.help}.</p>{body}</section>'
        for row, body in built
    )
    plotly, own = _plotly_script(), _static("report.js")
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(own)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    name = text(data.header.model)
    eyebrow = " · ".join(
        text(part) for part in ("affectlens report", data.header.corpus, data.header.date) if part
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="generator" content="affectlens {text(data.header.package_version)}">
<title>Emotion in {name}</title>
<link rel="icon" href="data:,">
<style>{stylesheet()}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the results</a>
<header class="masthead"><div>
<div class="top"><div><p class="eyebrow">{eyebrow}</p><h1>Emotion in {name}</h1></div>
<button class="theme" type="button">Theme: system</button></div>
{_tiles(data)}{_facts(data)}
<noscript><p>The figures need JavaScript; tables and texts do not.</p></noscript>
</div></header>
<div class="frame">
<nav class="toc" aria-label="Contents"><ol>{contents}</ol></nav>
<main id="main">{main}</main>
</div>
<footer><div>{_method(data)}</div></footer>
{json_block(dumps(dict(style.DARK)), "dark-colours")}
<script>{plotly}</script>
<script>{own}</script>
</body>
</html>
"""


def write(data: ReportData, path: str | Path) -> Path:
    """Write the page to a file, atomically.

    Raises:
        ArtefactError: If the file cannot be written.
    """
    path = Path(path)
    write_text(path, render(data))
    return path
