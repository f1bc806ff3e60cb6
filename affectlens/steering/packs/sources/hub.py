"""Packs on the Hugging Face hub: ``hub:owner/repo/file``, or ``hub:owner/repo@revision/file``."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from affectlens.core import ArtefactError, DataError
from affectlens.steering.packs.card import ENDING, card_file
from affectlens.steering.packs.sources.source import PackSource

_PACK = ".safetensors"


@dataclass(frozen=True)
class Address:
    """What follows the colon.

    Attributes:
        repo: ``owner/repo``.
        file: Within it; "" for all of it.
        revision: Branch, tag or commit; None for the main branch.
    """

    repo: str
    file: str
    revision: str | None

    @classmethod
    def parse(cls, text: str, *, whole: bool = False) -> Address:
        """Read it; ``whole`` lets the file be left out.

        Raises:
            DataError: If it is no address.
        """
        parts = text.strip("/").split("/")
        file = "/".join(parts[2:])
        wrong = len(parts) < 2 or not all(parts) or ".." in parts
        if wrong or not (file or whole):
            raise DataError(f"hub:{text} is no pack on the hub; write hub:owner/repo/file.")
        repo, _, revision = "/".join(parts[:2]).partition("@")
        named = file if not file or file.endswith(_PACK) else file + _PACK
        return cls(repo, named, revision or None)

    @property
    def name(self) -> str:
        """The full name."""
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"hub:{self.repo}{revision}/{self.file}"

    @property
    def card(self) -> str:
        """The file of its card."""
        return self.file.removesuffix(_PACK) + ENDING


def locate(address: str) -> Path:
    """Fetch a pack and its card into the hub's cache.

    Raises:
        DataError: If the address is none.
        ArtefactError: If the hub cannot be reached, or has no such file.
    """
    from huggingface_hub import hf_hub_download

    found = Address.parse(address)
    with _one_sentence(found):
        pack, _card = (
            Path(hf_hub_download(found.repo, file, revision=found.revision))
            for file in (found.file, found.card)
        )
    return pack


def names_in(address: str) -> Sequence[str]:
    """The packs of a repository.

    Raises:
        DataError, ArtefactError: As `locate`.
    """
    from huggingface_hub import HfApi

    found = Address.parse(address, whole=True)
    with _one_sentence(found):
        inside = set(HfApi().list_repo_files(found.repo, revision=found.revision))
    packs = (name.removesuffix(ENDING) + _PACK for name in sorted(inside) if name.endswith(ENDING))
    return [Address(found.repo, p, found.revision).name for p in packs if p in inside]


def store(address: str, pack: Path, card: Path, replace: bool) -> str:
    """Put a pack and its card into a repository, in one commit; it is made if it is not there.

    Raises:
        DataError, ArtefactError: As `locate`; also if another pack has that name already.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    found = Address.parse(address, whole=True)
    found = found if found.file else Address(found.repo, pack.name, found.revision)
    with _one_sentence(found):
        api = HfApi()
        api.create_repo(found.repo, exist_ok=True)
        if not replace and api.file_exists(found.repo, found.file, revision=found.revision):
            raise ArtefactError(
                f"{found.name} is there already; choose another name, or replace it with --force."
            )
        api.create_commit(
            found.repo,
            [
                CommitOperationAdd(path_in_repo=found.file, path_or_fileobj=pack),
                CommitOperationAdd(path_in_repo=found.card, path_or_fileobj=card),
            ],
            commit_message=f"Steering pack {card_file(Path(found.file)).name.removesuffix(ENDING)}",
            revision=found.revision,
        )
    return found.name


@contextmanager
def _one_sentence(address: Address) -> Generator[None]:
    """What the hub's client complains of, in our words."""
    from huggingface_hub import errors

    try:
        yield
    except ArtefactError:
        raise
    except errors.HFValidationError as error:
        raise DataError(f"{address.name} is no name on the hub: {_first_line(error)}.") from error
    except errors.GatedRepoError as error:
        raise ArtefactError(
            f"The hub shows {address.repo} to those who were granted access; ask for it there, "
            "and log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ArtefactError(
            f"The hub has no repository {address.repo}, or it is private; check the name, or log "
            "in with `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ArtefactError(
            f"The repository {address.repo} has no revision {address.revision}."
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise ArtefactError(
            "The hub wants to know who you are; log in with `hf auth login`."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise _offline(address, error) from error
    except errors.EntryNotFoundError as error:
        raise ArtefactError(
            f"The repository {address.repo} has no pack {address.file} with a card {address.card} "
            f"beside it; `affectlens packs list hub:{address.repo}` lists them."
        ) from error
    except errors.HfHubHTTPError as error:
        raise ArtefactError(f"The hub refused {address.name}: {_first_line(error)}.") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise _offline(address, error) from error
    except Exception as error:  # the client's library for HTTP has classes of its own
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests")):
            raise
        raise _offline(address, error) from error


def _offline(address: Address, error: BaseException) -> ArtefactError:
    return ArtefactError(
        f"{address.name} cannot be had: the hub cannot be reached ({_first_line(error)}); check "
        "the network, or take a pack of the box (box:NAME) or of a folder (file:FOLDER/NAME)."
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".")


HUB = PackSource(
    "hub", "hub:owner/repo/file: the Hugging Face hub, @revision behind repo", locate, names_in,
    store,
)  # fmt: skip
