"""Replies that work between runs keeps, as JSON: a file is whole or not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from affectlens.core import ArtefactError, DataError
from affectlens.core.artefact import read_json, write_json
from affectlens.evaluation.reply import Reply


def write_replies(path: Path, replies: Sequence[Reply], **more: object) -> None:
    """Keep replies, and what else is to be known of them."""
    write_json(path, {**more, "replies": [reply.to_dict() for reply in replies]})


def read_replies(path: Path) -> list[Reply]:
    """The replies of a file; none if there is none.

    Raises:
        ArtefactError: If it cannot be read.
    """
    if not path.is_file():
        return []
    try:
        return [Reply.from_dict(row) for row in read_json(path)["replies"]]
    except (KeyError, TypeError, DataError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}); delete it and run again.") from error
