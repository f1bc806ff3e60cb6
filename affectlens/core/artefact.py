"""Artefacts on disk: safetensors with a JSON header, fingerprints, atomic writes.

Every file we write names what made it. Reading never unpickles, checks the size before it trusts
the header, and says in words what does not fit.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from affectlens.core.errors import ArtefactError, MismatchError

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 1
_HEADER_KEY = "affectlens"


def package_version() -> str:
    """Version of the installed package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("affectlens")
    except PackageNotFoundError:
        return "0+unknown"


def canonical_json(value: Any) -> str:
    """JSON with sorted keys; dataclasses, paths and tuples are written as their plain forms."""

    def plain(obj: Any) -> Any:
        if is_dataclass(obj) and not isinstance(obj, type):
            return asdict(obj)
        if isinstance(obj, Path):
            return str(obj)
        if isinstance(obj, (set, frozenset)):
            return sorted(cast("set[Any]", obj))
        raise TypeError(f"cannot write {type(obj).__name__} as JSON")

    return json.dumps(value, sort_keys=True, default=plain, ensure_ascii=False)


def _json_bytes(value: Any) -> bytes:
    return canonical_json(value).encode()


def fingerprint(*values: Any) -> str:
    """Content hash (16 hex digits) of anything JSON can hold, dataclasses included."""
    digest = hashlib.sha256()
    for value in values:
        # The prefix tells bytes from the JSON that happens to look like them.
        digest.update(b"b" + value if isinstance(value, bytes) else b"j" + _json_bytes(value))
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """SHA-256 (all 64 digits) of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@dataclass(frozen=True)
class Provenance:
    """What made an artefact.

    Attributes:
        kind: ``"directions"``, ``"circuit"``, ``"pack"``, ...
        model: Fingerprint of the model's config and weights ("" if none).
        model_name: The name it was loaded by, for messages only.
        corpus: Fingerprint of the corpus ("" if none).
        parameters: Everything else the result depends on, seeds included.
        inputs: Fingerprints of the artefacts it was made from.
    """

    kind: str
    model: str = ""
    model_name: str = ""
    corpus: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of all of it but the display name: equal means the work need not be redone."""
        return fingerprint(
            FORMAT_VERSION, self.kind, self.model, self.corpus, self.parameters, self.inputs
        )

    def require_model(self, fingerprint: str, name: str = "", *, force: bool = False) -> None:
        """Refuse a model other than the one this was made for.

        Raises:
            MismatchError: If the fingerprints differ and ``force`` is not set.
        """
        if self.model != fingerprint and not force:
            raise MismatchError(
                f"This {self.kind} was made for model {self.model_name or '?'} "
                f"({self.model or 'no fingerprint'}), not for {name or 'this model'} "
                f"({fingerprint}); make it again for this model, or force it."
            )


@contextlib.contextmanager
def _writing(path: Path) -> Generator[Path, None, None]:
    """Yield a temporary name beside ``path`` and rename it on success; leave nothing on failure."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _fsync_folder(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system allows opening folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def disk_error(path: Path | str, error: OSError) -> ArtefactError:
    """The sentence for a file or folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ArtefactError(f"No space left to write {path}; free some disk and run it again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ArtefactError(f"May not write {path}; choose a folder you can write to.")
    return ArtefactError(f"Could not write {path}: {error.strerror or error}.")


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary name, then fsync and rename it to ``path``.

    Raises:
        ArtefactError: If the folder cannot be written or the disk is full; nothing is left behind.
    """
    with _writing(Path(path)) as temporary:
        write(temporary)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the given order."""
    plain = json.loads(canonical_json(value)) if is_dataclass(value) else value
    write_text(path, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ArtefactError: If the file is missing, not UTF-8, or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtefactError(f"{path} cannot be read as JSON: {error}; make it again.") from error


def write_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    provenance: Provenance,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors and what made them to one safetensors file, atomically.

    Args:
        path: Target file.
        tensors: Named tensors, any dtype safetensors knows.
        provenance: What made them.
        extra: JSON-able facts the reader needs (labels, hook names, strengths).
    """
    from safetensors.torch import save_file

    header = {
        "format_version": FORMAT_VERSION,
        "package_version": package_version(),
        "provenance": asdict(provenance),
        "extra": dict(extra or {}),
    }
    # Shared storage is not allowed in the format; contiguous copies are.
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    metadata = {_HEADER_KEY: canonical_json(header)}

    def save(temporary: Path) -> None:
        try:
            save_file(plain, temporary, metadata=metadata)
        except Exception as error:  # safetensors reports a full disk as its own error class
            if "os error 28" in str(error) or "No space" in str(error):
                raise OSError(errno.ENOSPC, "no space left") from error
            raise

    atomic_write(path, save)


@dataclass(frozen=True)
class TensorFile:
    """What `read_tensors` found."""

    tensors: dict[str, torch.Tensor]
    provenance: Provenance
    extra: dict[str, Any]
    package_version: str


def read_header(path: Path, kind: str | None = None) -> tuple[Provenance, dict[str, Any], str]:
    """Read and check the JSON header alone: provenance, extra facts, package version.

    Raises:
        ArtefactError: If the file is missing, cut short, no artefact of ours, or of a newer format.
        MismatchError: If it is another kind of artefact.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ArtefactError(f"There is no file {path}.")
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = cast("dict[str, str]", handle.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtefactError(
            f"{path} is cut short or damaged ({error}); delete it and make it again."
        ) from error
    if _HEADER_KEY not in metadata:
        raise ArtefactError(f"{path} was not written by affectlens (no {_HEADER_KEY} header).")
    try:
        header = json.loads(metadata[_HEADER_KEY])
        version = int(header["format_version"])
        if version > FORMAT_VERSION:
            raise ArtefactError(
                f"{path} has format {version}, newer than the {FORMAT_VERSION} this "
                "version reads; upgrade affectlens."
            )
        provenance = Provenance(**header["provenance"])
        extra = dict(header["extra"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path} has a damaged header ({error}); make it again.") from error
    if kind is not None and provenance.kind != kind:
        raise MismatchError(f"{path} holds a {provenance.kind}, not a {kind}.")
    return provenance, extra, str(header.get("package_version", "?"))


def read_tensors(path: Path, kind: str | None = None) -> TensorFile:
    """Read a file of `write_tensors`.

    Raises:
        ArtefactError, MismatchError: As `read_header`; also if a tensor holds NaN or infinity.
    """
    from safetensors.torch import load_file

    provenance, extra, version = read_header(path, kind)
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ArtefactError(f"{path}: tensor {name!r} holds NaN or infinity; make it again.")
    return TensorFile(tensors, provenance, extra, version)
