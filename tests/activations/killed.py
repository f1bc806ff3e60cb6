"""Captures that are killed: ``python -m tests.activations.killed MODEL FOLDER KILLS``.

One process loads the model and forks a child per capture, so that a kill costs no new start.
Prints, as JSON, what happened.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from affectlens.activations import capture
from affectlens.models.loading import load_model
from tests.activations import plain

N_TEXTS = 120
OPTIONS: dict[str, Any] = {
    "sites": "resid_post,mlp_post@1",
    "positions": "mean:reply,all:reply",
    "max_tokens_per_batch": 300,
    "shard_bytes": 60_000,
}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a store, whoever may be writing it left out."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.name != "writer.lock"
    }


def child(model: Any, out: Path) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        capture(model, plain.many(N_TEXTS), out=out, **OPTIONS)
        code = 0
    finally:
        os._exit(code)


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(source: str, folder: Path, kills: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = load_model(source, device="cpu", dtype="float32")
    whole, out = folder / "whole", folder / "killed"
    started = time.monotonic()
    assert ended(child(model, whole)) == 0
    seconds = time.monotonic() - started
    expected = tree(whole)
    killed, complete, found = 0, 0, list[int]()
    while True:
        process = child(model, out)
        if killed < kills:
            # Late ones among early ones: a capture that goes on has less to do than a new one.
            time.sleep(seconds * ((killed * 7) % kills + 0.5) / kills)
            os.kill(process, signal.SIGKILL)  # of no effect on a child that is a zombie already
        code = ended(process)
        assert code in (0, -signal.SIGKILL), code
        if code:
            killed += 1
            found.append(len(list(out.glob("shards/*.safetensors"))))
            continue
        assert tree(out) == expected
        complete += 1
        if killed >= kills:
            return {"killed": killed, "complete": complete, "found": found, "seconds": seconds}
        shutil.rmtree(out)


if __name__ == "__main__":
    told = main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(told) + "\n")
