"""Step ``steering``: the residual stream pushed along directions, and along random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import EMOTIONS, Site
from affectlens.geometry import Directions
from affectlens.models.hooking.hooks import writing
from affectlens.reproductions.emotion_circuits import ONE_DECODING
from affectlens.reproductions.emotion_circuits.directions_step import DIRECTIONS
from affectlens.reproductions.emotion_circuits.modulation import rms_steering
from affectlens.reproductions.emotion_circuits.replies import Said, generate_said, save_said
from affectlens.reproductions.emotion_circuits.scenarios import FILE, load_events
from affectlens.reproductions.emotion_circuits.settings import PaperSettings, steered_layers

if TYPE_CHECKING:
    from affectlens.reproductions.study import StudyRun

STEERED = "steered.jsonl"
CONTROL = "steered_random.jsonl"


def work(run: StudyRun) -> list[str]:
    """Steer towards each emotion on every test event; then the same along random directions."""
    directions = Directions.load(run.input("directions", DIRECTIONS))
    settings: PaperSettings = run.settings
    layers = steered_layers(settings.steered_band, run.model.n_layers)
    vectors = torch.stack(
        [directions.vectors[directions.site_index(Site(i, "resid_post"))] for i in layers], dim=1
    )
    generator = torch.Generator().manual_seed(run.option("seed"))
    noise = torch.randn(vectors.shape, generator=generator)
    random = torch.nn.functional.normalize(noise, dim=-1)
    save_said(run.folder / STEERED, _said(run, layers, vectors, "steered replies"))
    save_said(run.folder / CONTROL, _said(run, layers, random, "replies along random directions"))
    return [STEERED, CONTROL]


def _said(
    run: StudyRun, layers: range, vectors: Float[Tensor, "emotion layer d_model"], title: str
) -> list[Said]:
    settings: PaperSettings = run.settings
    decoding = settings.prompted if run.corrected(ONE_DECODING) else settings.steered
    events = load_events(run.input("scenarios", FILE), "test")
    replies: list[Said] = []
    for emotion, each in zip(EMOTIONS, vectors, strict=True):
        writers = rms_steering(dict(zip(layers, each, strict=True)), settings.alpha)
        with writing(run.model.anatomy, writers):
            asked = [(emotion, "neutral")]
            replies += generate_said(run.model, events, asked, decoding, f"{title}: {emotion}")
    return replies
