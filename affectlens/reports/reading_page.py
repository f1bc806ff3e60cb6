"""One self-contained page: texts with every token in the colour of what a probe reads there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.plotting import style
from affectlens.reports.markup import dot, number, percent, text

if TYPE_CHECKING:
    from affectlens.probes import Probe, Readings
    from affectlens.probes.reading import Reading

_CSS = """
body{margin:2rem auto;max-width:60rem;padding:0 1rem;background:var(--page);color:var(--ink);
font:16px/1.7 system-ui,sans-serif}
h1{font-size:1.4rem}h2{font-size:1rem;margin:1.6rem 0 .2rem;color:var(--muted)}
.note,.scores{color:var(--muted);font-size:.9rem}.row{white-space:pre-wrap;margin:.2rem 0}
.row span{border-radius:3px;background:color-mix(in srgb,var(--c) calc(var(--p)*80%),transparent)}
.dot{display:inline-block;width:.7em;height:.7em;border-radius:50%;background:var(--c);
margin:0 .3em 0 .9em}
"""


def reading_page(probe: Probe, found: Readings) -> str:
    """The page, without a script, another file or the network.

    Args:
        probe: That read them.
        found: Of `affectlens.read`.
    """
    light, dark = style.css_variables(dark=False), style.css_variables(dark=True)
    legend = "".join(f"{dot(name, i)}{text(name)}" for i, name in enumerate(found.classes))
    facts = [
        f"A {text(probe.kind)} probe of <code>{text(probe.site.hook_name)}</code> in "
        f"{text(probe.provenance.model_name or 'a model')}, calibrated by "
        f"{text(probe.calibration.kind)}."
    ]
    if probe.after is not None:
        one = probe.after
        facts.append(
            f"Its probabilities of whole texts are off by {number(one.ece, 3)} on average "
            f"({number(one.ece_low, 3)} to {number(one.ece_high, 3)}, {one.rows} texts)."
        )
    facts.append(
        f"A text's probabilities are read at {text(found.position)}. A token's colour is the class "
        "that it shows alone, the stronger the surer; these are the same probe's, calibrated on "
        "whole texts, not on tokens."
    )
    body = "".join(_text(one, found.classes) for one in found.texts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>What a probe reads</title><style>:root{{{light}}}"
        f"@media (prefers-color-scheme: dark){{:root{{{dark}}}}}{_CSS}</style></head><body>"
        f'<h1>What a probe reads</h1><p class="note">{" ".join(facts)}</p><p>{legend}</p>'
        f"{body}</body></html>\n"
    )


def _text(one: Reading, classes: tuple[str, ...]) -> str:
    tokens = list[str]()
    for token, own in zip(one.tokens, one.by_token, strict=True):
        top = int(own.argmax())
        title = ", ".join(
            f"{name} {percent(float(p))}" for name, p in zip(classes, own, strict=True)
        )
        colour = style.css_colour(classes[top], top)
        tokens.append(
            f'<span style="--c:{colour};--p:{float(own[top]):.3f}" title="{text(title)}">'
            f"{text(token)}</span>"
        )
    ranked = sorted(zip(one.of_text.tolist(), classes, strict=True), reverse=True)
    scores = ", ".join(f"{text(name)} {percent(p)}" for p, name in ranked)
    sets = ""
    if one.labels is not None:
        sets = f" Labels: {text(', '.join(one.labels) or 'none')}."
    return (
        f'<h2>{text(one.id)}</h2><p class="row">{"".join(tokens)}</p>'
        f'<p class="scores">{scores}.{sets}</p>'
    )
