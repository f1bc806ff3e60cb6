"""Step ``influence``: what a push at each sublayer does to the end of the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.influence import InfluenceProfile, band
from affectlens.circuits.published_influence import InfluenceReading, published_influence
from affectlens.core import EMOTIONS
from affectlens.core.artefact import Provenance, read_json, read_tensors, write_tensors
from affectlens.geometry import Directions
from affectlens.reproductions.comparison import Finding, save_findings
from affectlens.reproductions.emotion_circuits import RAW_LAST
from affectlens.reproductions.emotion_circuits.depth import first_above
from affectlens.reproductions.emotion_circuits.directions_step import DIRECTIONS, SIGMA
from affectlens.reproductions.emotion_circuits.scenarios import FILE, load_events, spread_events
from affectlens.reproductions.emotion_circuits.settings import PaperSettings, scaled

if TYPE_CHECKING:
    from affectlens.reproductions.study import StudyRun

INFLUENCE = "influence.safetensors"
FINDINGS = "influence.json"
_KIND = "influence"


def work(run: StudyRun) -> list[str]:
    """Push every sublayer along its direction on neutral prompts, with all sizes of push."""
    settings: PaperSettings = run.settings
    model = run.model
    directions = Directions.load(run.input("directions", DIRECTIONS))
    sigma = torch.tensor(read_json(run.input("directions", SIGMA))["sigma"])
    events = load_events(run.input("scenarios", FILE), "fit")
    chats = [e.record("neutral").chat for e in spread_events(events, settings.influence_prompts)]
    prompts = [model.encode_chat(chat, add_generation_prompt=True).ids for chat in chats]
    normed = not run.corrected(RAW_LAST)
    reading = InfluenceReading(settings.alphas, normed=normed)
    gains = published_influence(model, prompts, directions, sigma, reading)
    made_by = Provenance(
        _KIND,
        model=model.fingerprint,
        model_name=model.name,
        parameters={"alphas": list(settings.alphas), "normed": normed, "prompts": len(prompts)},
        inputs={"directions": directions.provenance.fingerprint},
    )
    write_tensors(run.folder / INFLUENCE, {**gains, "sigma": sigma}, made_by)
    save_findings(run.folder / FINDINGS, _findings(gains, settings), _profile(gains))
    return [INFLUENCE, FINDINGS]


def load_profile(path: Path) -> InfluenceProfile:
    """What allocation takes: means over prompts and sizes of push."""
    file = read_tensors(path, _KIND)
    gains = {name: file.tensors[name] for name in ("late", "middle")}
    n = len(gains["late"])
    by_prompt = {name: x.mean(1) for name, x in gains.items()}
    layers = gains["late"].shape[-2]
    return InfluenceProfile(
        emotions=EMOTIONS,
        values={name: x.mean(0) for name, x in by_prompt.items()},
        error={
            name: x.std(0) / n**0.5 if n > 1 else torch.zeros_like(x[0])
            for name, x in by_prompt.items()
        },
        sigma=file.tensors["sigma"],
        bands={name: band(layers, name) for name in gains},
        made_by={"published": dict(file.provenance.parameters)},
    )


Gains = Mapping[str, Float[Tensor, "prompt alpha emotion layer 2"]]


def _profile(gains: Gains) -> dict[str, object]:
    late = gains["late"].mean((0, 1, 2))
    return {"by_layer": {"attention": late[:, 0].tolist(), "mlp": late[:, 1].tolist()}}


def _findings(gains: Gains, settings: PaperSettings) -> list[Finding]:
    """Means over emotions; a layer has the mean of its two sublayers."""
    late = gains["late"].mean(0)  # [alpha, emotion, layer, 2]
    by_layer = late.mean((0, 1, 3))
    other = gains["middle"].mean((0, 1, 2, 4))
    n = len(by_layer)
    peak = int(by_layer.argmax())
    rise = first_above(by_layer[: peak + 1].tolist(), [float(by_layer[peak]) / 4] * (peak + 1))
    agreement = float(torch.corrcoef(torch.stack([by_layer, other]))[0, 1]) if n > 1 else None
    early = by_layer[: max(scaled(8, n), 1)]
    prompts = gains["late"].mean((1, 2, 4))[:, peak]
    error = float(prompts.std() / len(prompts) ** 0.5) if len(prompts) > 1 else None
    strongest = late.mean((0, 2, 3)).argmax()

    def near(value: float) -> tuple[float | None, float | None]:
        return (None, None) if error is None else (value - 1.96 * error, value + 1.96 * error)

    value = float(by_layer[peak])
    low, high = near(value)
    reference = "correlation over layers with a reference axis of the middle band"
    findings = [
        Finding("influence.early", float(early.mean())),
        Finding(
            "influence.rise",
            "never" if rise is None else rise / n,
            note="" if rise is None else f"a quarter of the peak from layer {rise} of {n} on",
        ),
        Finding("influence.peak", value, low, high, agreement, reference),
        Finding("influence.peak_depth", peak / n, note=f"layer {peak} of {n}"),
        Finding("influence.end", float(by_layer[-1])),
        Finding("influence.strongest", EMOTIONS[int(strongest)]),
    ]
    for a, alpha in enumerate(settings.alphas):
        name = f"influence.alpha.{alpha:g}"
        findings.append(Finding(name, float(late[a].mean((0, 2))[peak])))
    return findings
