"""What a study is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affectlens.pipeline.engine import Files

if TYPE_CHECKING:
    from affectlens.reproductions.comparison import PaperFigure
    from affectlens.reproductions.request import StudyRequest
    from affectlens.reproductions.study import StudyRun


@dataclass(frozen=True)
class Correction:
    """Something that the published code does and that can be done right instead.

    Attributes:
        name: What users write.
        help: What is done with it.
        published: What is done without it, as published.
    """

    name: str
    help: str
    published: str


@dataclass(frozen=True)
class Step:
    """One step of a study.

    Attributes:
        name: Short; also of its files.
        title: What the progress line says.
        needs: Steps whose files it reads.
        reads: ``"material"``, or names in `affectlens.pipeline.fingerprints.SOURCES`.
        options: Fields of the request that it looks at.
        corrections: Those that it can make.
        work: Does it, and returns the files it wrote.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    options: tuple[str, ...]
    corrections: tuple[str, ...]
    work: Callable[[StudyRun], Files]


@dataclass(frozen=True)
class Reproduction:
    """A study.

    Attributes:
        name: What users write.
        help: One line.
        paper: What to cite.
        steps: Inputs before users; the last one writes the comparison.
        corrections: All that its steps can make.
        settings: Its constants, as published, given the request.
        material: Reads the texts, and gives their fingerprint; called before weights are loaded.
        figures: The paper's, with where they stand in it.
        remarks: Where this differs from the paper whatever is asked, a sentence each.
    """

    name: str
    help: str
    paper: str
    steps: tuple[Step, ...]
    corrections: tuple[Correction, ...]
    settings: Callable[[], Any]
    material: Callable[[StudyRequest], str]
    figures: Callable[[], tuple[PaperFigure, ...]]
    remarks: tuple[str, ...]
