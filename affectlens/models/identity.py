"""What a model is, remembered by the files that it was loaded from.

Hashing all weights takes a second for a billion of them; a file that has not changed (size, times,
inode) need not be read again to know its name. Where it cannot be remembered, it is made anew.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectlens.core.artefact import canonical_json, fingerprint, read_json, write_json
from affectlens.core.errors import AffectLensError
from affectlens.models import fingerprint as weights
from affectlens.models import registry
from affectlens.models.chat.chats import TEMPLATE_FACTS
from affectlens.models.chat.dates import TODAY

WORTH_REMEMBERING = 2**25
"""Bytes; smaller models are hashed sooner than looked up, and leave no trace in the cache."""


@dataclass(frozen=True)
class ModelIdentity:
    """Names of a model's two halves.

    Attributes:
        weights: `model_fingerprint`.
        text: `text_fingerprint`; empty if it is not known.
    """

    weights: str
    text: str = ""


def text_fingerprint(tokenizer: Any) -> str:
    """Hash of all that decides which tokens a chat becomes.

    Vocabulary, merges and rules of the tokenizer, its special tokens, the chat template, and what
    templates are told (the date, no chain of thought).
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: Any = sorted(tokenizer.get_vocab().items())
    else:
        rules = json.loads(backend.to_str())
        for name in ("padding", "truncation"):  # left over from the last call
            rules.pop(name, None)
    return fingerprint(
        type(tokenizer).__name__ if backend is None else "fast",
        rules,
        {str(k): str(v) for k, v in tokenizer.special_tokens_map.items()},
        [bool(getattr(tokenizer, f"add_{name}_token", False)) for name in ("bos", "eos")],
        canonical_json(getattr(tokenizer, "chat_template", None)),
        dict(TEMPLATE_FACTS),
        TODAY.isoformat(),
    )


def source_files(source: str | Path) -> tuple[Path, ...]:
    """The files behind a name that `load_model` takes; empty if they are not on this machine."""
    name = str(source)
    if isinstance(source, str) and name in registry.BUILTIN:
        path = next(info.path for info in registry.list_models() if info.name == name)
    else:
        path = Path(name).expanduser()
        if not path.exists():
            path = _hub_snapshot(name) or path
    if path.is_file():
        return (path,)
    if not path.is_dir():
        return ()
    return tuple(file for file in sorted(path.iterdir()) if file.is_file())


def known_identity(source: str | Path) -> ModelIdentity | None:
    """What `remember_identity` was told of these very files, or None."""
    note = _note(source)
    if note is None:
        return None
    try:
        known = read_json(note)
        return ModelIdentity(str(known["weights"]), str(known["text"]))
    except (AffectLensError, KeyError, TypeError):
        return None


def remember_identity(source: str | Path, identity: ModelIdentity) -> None:
    """Keep the names of a model by its files. Does nothing where the cache cannot be written."""
    note = _note(source)
    if note is None:
        return
    with contextlib.suppress(AffectLensError, OSError):
        write_json(note, {"weights": identity.weights, "text": identity.text})


def checkpoint_identity(folder: Path) -> str:
    """`checkpoint_fingerprint`, remembered by the files of the folder.

    Raises:
        OSError, KeyError, ValueError: As `checkpoint_fingerprint`.
    """
    known = known_identity(folder)
    if known is not None:
        return known.weights
    found = weights.checkpoint_fingerprint(folder)
    remember_identity(folder, ModelIdentity(found))
    return found


def _note(source: str | Path) -> Path | None:
    """Where the names of these files are kept; None if there are none, or the model is small."""
    import transformers

    stats = [(file.name, file.stat()) for file in source_files(source)]
    if sum(s.st_size for _, s in stats) < WORTH_REMEMBERING:
        return None
    # The change time cannot be set by hand; transformers turns files into weights.
    facts = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in stats]
    key = fingerprint(weights.SCHEME, transformers.__version__, facts)
    return registry.cache_folder() / "identities" / f"{key}.json"


def _hub_snapshot(name: str) -> Path | None:
    """Folder of a hub model in the local cache."""
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, "config.json")
    except (ImportError, ValueError, OSError):  # no hub id
        return None
    return Path(found).parent if isinstance(found, str) else None


class WatchedFingerprint:
    """`model_fingerprint` of a model in memory, made again when its weights have changed.

    Adapters are merged, layers edited and weights loaded into a model that was named before; a few
    values of every tensor, their versions and the config tell, for a few milliseconds.

    Args:
        hf: The model.
        known: Its name as it is now, if that is known.
    """

    def __init__(self, hf: Any, known: str | None = None) -> None:
        self._hf = hf
        self._name = known or weights.model_fingerprint(hf)
        self._state = weights.glance(hf)

    def __call__(self) -> str:
        """The name of the model as it is now."""
        state = weights.glance(self._hf)
        if state != self._state:
            self._name, self._state = weights.model_fingerprint(self._hf), state
        return self._name
