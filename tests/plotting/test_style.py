"""The palette: told apart by everyone, readable on both backgrounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from affectlens.core import EMOTIONS
from affectlens.plotting import style

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
OKABE_ITO = ["#D55E00", "#009E73", "#CC79A7", "#E69F00", "#0072B2", "#56B4E9"]


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    high, low = sorted((float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def smallest_distance(colours: list[str], vision: str) -> float:
    seen = np.clip(np.stack([linear(c) for c in colours]) @ np.array(VISION[vision]).T, 0, 1)
    lab = np.cbrt(seen @ TO_LMS.T) @ TO_LAB.T
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(lab, 2))


PALETTES = {
    "light": [style.emotion_colour(e) for e in EMOTIONS],
    "dark": [style.DARK[style.emotion_colour(e)] for e in EMOTIONS],
}


@pytest.mark.parametrize("theme", PALETTES)
def test_emotions_are_further_apart_than_in_okabe_and_itos_palette(theme: str):
    ours = min(smallest_distance(PALETTES[theme], vision) for vision in VISION)
    theirs = min(smallest_distance(OKABE_ITO, vision) for vision in VISION)
    assert ours > theirs


@pytest.mark.parametrize(("theme", "page"), [("light", style.PAGE), ("dark", style.PAGE_DARK)])
def test_contrast_on_the_page(theme: str, page: str):
    assert min(contrast(colour, page) for colour in PALETTES[theme]) >= 3
    ink, muted = (
        (style.INK, style.MUTED) if theme == "light" else (style.INK_DARK, style.MUTED_DARK)
    )
    assert contrast(ink, page) >= 7
    assert contrast(muted, page) >= 4.5


def test_each_light_colour_has_one_dark_one():
    assert all(len(c) == 7 or c.startswith("rgba(") for c in style.DARK)
    light = [*PALETTES["light"], style.emotion_colour("neutral")]
    assert len(set(light)) == len({style.DARK[c] for c in light}) == 7


def test_unknown_labels_get_a_colour_and_a_symbol():
    assert style.emotion_colour("pride", 1) in style.DARK
    assert style.emotion_colour("pride", 0) != style.emotion_colour("envy", 1)
    assert style.arm_colour("heads only") in style.DARK
    assert style.css_colour('"><script>') == "var(--x-0)"


def test_page_and_figures_use_the_same_emotion_colours():
    for dark in (False, True):
        css = style.css_variables(dark=dark)
        for emotion, colour in zip(EMOTIONS, PALETTES["dark" if dark else "light"], strict=True):
            assert f"--e-{emotion}:{colour};" in css
