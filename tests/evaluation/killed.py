"""Bake-offs that are killed: ``python -m tests.evaluation.killed PACKED FOLDER KILLS``.

One process loads the model and forks a child per bake-off, so that a kill costs no new start.
Prints, as JSON, what happened.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from affectlens.evaluation.bakeoff import BakeOffSettings, Jury, bake_off
from affectlens.evaluation.judges import load_judge
from affectlens.models import load_model
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.pipeline.run_material import RunMaterial
from tests.evaluation.test_bake_off import letters

SETTINGS = BakeOffSettings(
    methods=("circuit", "random_units"),
    emotions=("anger", "fear"),
    events=4,
    tune_events=2,
    looks=3,
    generation=GenerationSettings(max_new_tokens=6),
    chunk=4,
)


def child(material: RunMaterial, jury: Jury, folder: Path) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        bake_off(material, jury, folder, SETTINGS).save(folder)
        code = 0
    finally:
        os._exit(code)


def main(packed: Path, folder: Path, kills: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = load_model(str(packed / "model"), device="cpu", dtype="float32")
    lexicon = load_judge("lexicon")
    jury = Jury(lexicon, lexicon, letters)
    material = RunMaterial(packed / "run", model, folder / "kept")
    whole, killed = folder / "whole", folder / "killed"
    os.waitpid(child(material, jury, whole), 0)
    texts = killed / "texts"
    seen: dict[Path, tuple[int, bytes]] = {}
    done, changed, code = 0, 0, 1
    while code != 0:
        before = len(list(texts.glob("*.jsonl")))
        process = child(material, jury, killed)
        while done < kills and len(list(texts.glob("*.jsonl"))) == before:
            time.sleep(0.001)
        if done < kills:
            os.kill(process, signal.SIGKILL)
            done += 1
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        for file, (stamp, content) in seen.items():  # no text lost, none made again
            changed += (file.stat().st_mtime_ns, file.read_bytes()) != (stamp, content)
        seen = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in texts.glob("*.jsonl")}
        if code > 0:
            break
    names = ("bakeoff.json", "bakeoff.md")
    same = [(whole / name).read_text() == (killed / name).read_text() for name in names]
    return {"kills": done, "changed": changed, "code": code, "same": same, "files": len(seen)}


if __name__ == "__main__":
    told = main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(told) + "\n")
