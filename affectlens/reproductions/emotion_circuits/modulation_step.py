"""Step ``modulation``: the circuit's units changed while the model writes, and random units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.circuits import Circuit
from affectlens.core import EMOTIONS
from affectlens.models.hooking.hooks import writing
from affectlens.reproductions.emotion_circuits import LAST_HEADS, ONE_DECODING
from affectlens.reproductions.emotion_circuits.circuit_step import CIRCUIT
from affectlens.reproductions.emotion_circuits.modulation import circuit_modulation
from affectlens.reproductions.emotion_circuits.replies import Said, generate_said, save_said
from affectlens.reproductions.emotion_circuits.scenarios import FILE, load_events
from affectlens.reproductions.emotion_circuits.settings import PaperSettings

if TYPE_CHECKING:
    from affectlens.reproductions.study import StudyRun

MODULATED = "modulated.jsonl"
CONTROL = "modulated_random.jsonl"


def work(run: StudyRun) -> list[str]:
    """Add each emotion's differences at its units; then at as many random units per sublayer."""
    circuit = Circuit.load(run.input("circuit", CIRCUIT))
    random = circuit.randomised(run.option("seed"))
    save_said(run.folder / MODULATED, _said(run, circuit, "modulated replies"))
    save_said(run.folder / CONTROL, _said(run, random, "replies under random units"))
    return [MODULATED, CONTROL]


def _said(run: StudyRun, circuit: Circuit, title: str) -> list[Said]:
    settings: PaperSettings = run.settings
    decoding = settings.prompted if run.corrected(ONE_DECODING) else settings.modulated
    everywhere = not run.corrected(LAST_HEADS)
    events = load_events(run.input("scenarios", FILE), "test")
    attention, mlp = circuit.folded(run.model)
    replies: list[Said] = []
    for e, emotion in enumerate(EMOTIONS):
        writers = circuit_modulation(attention[e], mlp[e], settings.strength, everywhere=everywhere)
        with writing(run.model.anatomy, writers):
            asked = [(emotion, "neutral")]
            replies += generate_said(run.model, events, asked, decoding, f"{title}: {emotion}")
    return replies
