"""Writing a store: one writer at a time, going on where an earlier one stopped.

A store can be left at any moment. First comes a manifest that says it is not complete, then the
table, then shard after shard, each counted by its receipt; last a manifest with all of them, and
the receipts go. Every file appears whole or not at all, so what is found is either to be trusted
(its checksum holds) or to be made again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.activations.store.folder import Folder, open_folder
from affectlens.activations.store.label_table import position_rows, table_bytes
from affectlens.activations.store.lock import LOCKS, writing_alone
from affectlens.activations.store.manifest import (
    MANIFEST,
    SHARDS,
    TABLE,
    FileEntry,
    Manifest,
    ShardEntry,
    new_manifest,
    read_manifest,
    receipt_file,
    shard_entry,
    shard_file,
)
from affectlens.activations.store.shards import StoreSpec
from affectlens.core.artefact import Provenance
from affectlens.core.errors import ArtefactError, MismatchError

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_WORDS: Mapping[str, str] = {
    "model": "weights",
    "template": "chat template",
    "model_dtype": "dtype of the model",
    "overlong": "policy for overlong texts",
    "code": "code version",
    "sinks": "attention sinks that means leave out",
}


@dataclass(frozen=True, eq=False)
class WritingSession:
    """A store that is ours to write.

    Attributes:
        folder: Where it lies.
        spec: What it is to hold.
        done: Shards that are finished and whose checksums hold.
    """

    folder: Folder
    spec: StoreSpec
    done: frozenset[int]
    _check: Callable[[], None]

    def finish(self) -> None:
        """Complete the manifest, once all shards are written: from now on the store can be opened.

        Raises:
            ArtefactError: If shards are missing, or another process took over.
        """
        self._check()
        manifest = read_manifest(self.folder, unfinished=True)
        if not manifest.complete:
            entries = _entries(self.folder, manifest)
            missing = [i for i, entry in enumerate(entries) if entry is None]
            if missing:
                raise ArtefactError(
                    f"{self.folder.where} lacks {len(missing)} of {len(entries)} shards; run the "
                    "same capture again."
                )
            replace(manifest, shards=tuple(entries), complete=True).write(self.folder)
        _tidy(self.folder)


@contextmanager
def opened_for_writing(
    out: str | Path | Folder,
    spec: StoreSpec,
    table: pa.Table,
    *,
    resume: bool = True,
    force: bool = False,
) -> Generator[WritingSession]:
    """Lock a folder and find out which shards of a store it holds already.

    Damaged shards are named in a warning and count as not done.

    Args:
        out: Folder or URL.
        spec: What the store is to hold.
        table: Its labels, with the column ``stored``.
        resume: Whether to go on with what is there; else it is made anew.
        force: Whether a store made by something else may be replaced.

    Raises:
        MismatchError: If a store is there that something else made, naming what differs.
        ArtefactError: If something else is there, another process is writing, or the folder
            cannot be written.
    """
    folder = open_folder(out)
    positions = position_rows(table)
    if positions != spec.positions():
        raise ValueError(f"the table has rows {positions}, the shards {spec.positions()}")
    _refuse_others(folder)
    folder.make()
    with writing_alone(folder) as check:
        _refuse_others(folder)
        found = _found(folder, spec, resume, force)
        if found is None:
            _start(folder, spec, table, positions)
            done = frozenset[int]()
        else:
            done = _go_on(folder, found, spec, table)
        yield WritingSession(folder, spec, done, check)


def read_layout(out: str | Path | Folder) -> Mapping[str, Any] | None:
    """What the shards of the store in a folder were planned by; None if there is none.

    Raises:
        ArtefactError: If the manifest is damaged, or of another format.
    """
    folder = open_folder(out)
    if folder.size(MANIFEST) is None:
        return None
    return read_manifest(folder, unfinished=True).layout


def differences(made: Provenance, wanted: Provenance) -> list[str]:
    """What differs between two captures, in words."""
    old, new = (
        {"model": p.model, "corpus": p.corpus, **p.parameters, **p.inputs} for p in (made, wanted)
    )
    named = list[str]()
    for key in [*new, *(key for key in old if key not in new)]:
        a, b = old.get(key), new.get(key)
        if json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True):
            continue
        word = _WORDS.get(key, key.replace("_", " "))
        if key == "model" and made.model_name != wanted.model_name:
            a, b = made.model_name, wanted.model_name
        shown = [v for v in (a, b) if isinstance(v, (str, int)) and not _is_hash(v)]
        named.append(f"{word} ({a}, not {b})" if len(shown) == 2 else word)
    return named


def _is_hash(value: str | int) -> bool:
    text = str(value)
    return len(text) >= 16 and all(c in "0123456789abcdef" for c in text)


def _refuse_others(folder: Folder) -> None:
    """Refuse a place that holds files, but no store of ours."""
    path = folder.path
    if path is not None and path.exists() and not path.is_dir():
        raise ArtefactError(f"{path} is a file; choose another folder.")
    names = [name for name in folder.names() if name not in LOCKS and not _is_temporary(name)]
    if SHARDS in names and not any(not _is_temporary(name) for name in folder.names(SHARDS)):
        names.remove(SHARDS)
    if names and MANIFEST not in names:
        raise ArtefactError(
            f"{folder.where} exists and is no activation store; choose another folder."
        )


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")


def _found(folder: Folder, spec: StoreSpec, resume: bool, force: bool) -> Manifest | None:
    """The store to go on with; None if it is to be made anew, with nothing of it left."""
    if MANIFEST not in folder.names():
        return None
    found = read_manifest(folder, unfinished=True)
    other = differences(found.provenance, spec.provenance)
    if other and not force:
        raise MismatchError(
            f"{folder.where} holds another capture; what differs: {', '.join(other)}. Choose "
            "another folder, or force it to start anew."
        )
    if other or not resume:
        # The manifest goes last: without it the rest would be nobody's.
        _tidy(folder)
        for name in folder.names(SHARDS):
            folder.remove(f"{SHARDS}/{name}")
        folder.remove(TABLE)
        folder.remove(MANIFEST)
        return None
    rows = spec.positions()
    same = len(found.shards) == len(spec.shards) and found.positions == rows
    same = same and found.widths == spec.widths and found.dtype == spec.dtype
    entries = [(i, entry) for i, entry in enumerate(found.shards) if entry is not None]
    if not same or any(dict(entry.rows) != spec.rows(i) for i, entry in entries):
        raise MismatchError(
            f"{folder.where} was cut into other shards ({_plain(found.layout)}, not "
            f"{_plain(spec.layout)}); go on with those, or do not resume."
        )
    return found


def _plain(layout: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in layout.items())


def _start(folder: Folder, spec: StoreSpec, table: pa.Table, positions: Mapping[str, int]) -> None:
    content = table_bytes(table)
    new_manifest(
        spec.provenance,
        spec.dtype,
        spec.facts,
        spec.layout,
        spec.widths,
        positions,
        _table_entry(content),
        len(spec.shards),
    ).write(folder)
    folder.write(TABLE, content)


def _table_entry(content: bytes) -> FileEntry:
    return FileEntry(TABLE, len(content), sha256(content).hexdigest())


def _go_on(folder: Folder, found: Manifest, spec: StoreSpec, table: pa.Table) -> frozenset[int]:
    """Check what is there, drop what is damaged, and say which shards are done."""
    entries = _entries(folder, found)
    for i, entry in enumerate(entries):
        wrong = "" if entry is None else entry.damage(folder)
        if entry is not None and dict(entry.rows) != spec.rows(i):
            wrong = "holds other rows"
        if wrong:
            logger.warning("%s %s; it is made again.", folder.file(shard_file(i)), wrong)
            folder.remove(receipt_file(i))
            entries[i] = None
    changed = found
    if wrong := found.table.damage(folder):
        if found.complete or folder.size(TABLE) is not None:  # else it was never written
            logger.warning("%s %s; it is made again.", folder.file(TABLE), wrong)
        content = table_bytes(table)
        folder.write(TABLE, content)
        changed = replace(found, table=_table_entry(content))
    if found.complete and None in entries:
        changed = replace(changed, shards=tuple(entries), complete=False)
    if changed is not found:
        changed.write(folder)
    return frozenset(i for i, entry in enumerate(entries) if entry is not None)


def _entries(folder: Folder, found: Manifest) -> list[ShardEntry | None]:
    """What manifest and receipts say of each shard."""
    names = set(folder.names(SHARDS))
    entries = list(found.shards)
    for i, entry in enumerate(entries):
        receipt = receipt_file(i)
        if entry is None and receipt.rpartition("/")[2] in names:
            try:
                entries[i] = shard_entry(receipt, json.loads(folder.read(receipt)), i)
            except (ArtefactError, KeyError, TypeError, ValueError, AttributeError) as error:
                logger.warning("%s is damaged (%s).", folder.file(receipt), error)
    return entries


def _tidy(folder: Folder) -> None:
    """Remove receipts, and what killed writers left behind."""
    for name in folder.names():
        if _is_temporary(name):
            folder.remove(name)
    for name in folder.names(SHARDS):
        if _is_temporary(name) or name.endswith(".json"):
            folder.remove(f"{SHARDS}/{name}")
