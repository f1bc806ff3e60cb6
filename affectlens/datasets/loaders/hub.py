"""Corpora from the Hugging Face hub, through its `datasets` library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, cast

from affectlens.core import DataError


def hub_splits(
    repository: str, configuration: str | None = None
) -> Iterator[tuple[str, list[Mapping[str, Any]], Mapping[str, Any]]]:
    """Each split of a hub data set: its name, its rows and its features.

    Raises:
        DataError: If `datasets` is not installed or the hub cannot be reached.
    """
    try:
        library = import_module("datasets")
    except ImportError as error:
        raise DataError(
            "Reading from the hub needs the datasets library (pip install datasets); or give "
            "path= with a local copy."
        ) from error
    try:
        loaded = library.load_dataset(repository, configuration)
    except Exception as error:  # the library raises its own, requests' and the hub's errors
        raise DataError(
            f"Could not load {repository} from the hub ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no details'}); check the name and "
            "the connection, or give path= with a local copy."
        ) from error
    for name, split in cast("Mapping[str, Any]", loaded).items():
        yield (
            name,
            cast("list[Mapping[str, Any]]", split),
            cast("Mapping[str, Any]", split.features),
        )
