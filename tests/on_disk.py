"""A tiny model and a corpus as files, and the processes that work on them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import tiny_hf, tiny_tokenizer

_WORDS = ("angry", "happy", "afraid", "sad", "cancelled", "surprise", "lovely", "dark", "train")
_EMOTIONS = ("anger", "happiness", "fear", "sadness")


def save_model(folder: Path, family: str = "llama", seed: int = 0) -> str:
    """Write a tiny model as a folder that `load_model` reads, and return its name."""
    tiny_hf(family, seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def save_texts(file: Path, n: int) -> str:
    """Write ``n`` different texts of many lengths as JSONL."""
    rows = list[dict[str, str]]()
    for i in range(n):
        words = [_WORDS[(i * k) % len(_WORDS)] for k in range(1, 3 + i % 9)]
        text = f"It was {i} and I am {' and '.join(words)}."
        rows.append({"id": f"t{i}", "text": text, "emotion": _EMOTIONS[i % len(_EMOTIONS)]})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a store but its lock, which says nothing about it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "writer.lock"
    }


def actors(driver: int, *titles: bytes) -> list[int]:
    """Processes that run a Ray actor for a process, which started Ray itself."""
    names, parents = dict[int, bytes](), dict[int, int]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                names[int(entry.name)] = (entry / "cmdline").read_bytes()
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])

    def descends(pid: int) -> bool:
        while pid in parents and pid != driver:
            pid = parents[pid]
        return pid == driver

    return [
        pid
        for pid, name in names.items()
        if name.startswith(titles or b"ray::Actor") and descends(pid)
    ]


def alive(pid: int) -> bool:
    """Whether a process still runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
