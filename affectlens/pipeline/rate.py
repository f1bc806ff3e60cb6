"""Rating the replies of a run, or texts of one's own, by hand: each rating is kept at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import TONES, ArtefactError, DataError
from affectlens.core.artefact import write_json, write_text
from affectlens.core.jsonl import json_line, parse_jsonl
from affectlens.evaluation.rating import (
    Agreement,
    Rating,
    Shown,
    agreement_with,
    heard_by_arm,
    rating_from,
    sample,
    text_key,
)

if TYPE_CHECKING:
    from affectlens.evaluation.judges import Judge

GARBLED = "garbled"


@dataclass(frozen=True)
class RateRequest:
    """What to rate.

    Attributes:
        run: Run folder; its replies are rated if there is no file, and ratings are kept in it.
        file: JSONL, JSON or CSV file with a column of texts, instead of replies.
        columns: Field to column of the file, as `affectlens.datasets.load` takes them.
        arms: Whose replies; none: all of the run.
        n: At most so many texts; None takes all.
        rater: Whose ratings; a name that can be that of a file.
        seed: Of the order; two raters with one seed see the same texts.
    """

    run: Path
    file: Path | None = None
    columns: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    n: int | None = 60
    rater: str = "me"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.rater or not all(c.isalnum() or c in "-_" for c in self.rater):
            raise DataError(f"A rater's name has letters, digits, - and _, unlike {self.rater!r}.")

    @property
    def ratings_file(self) -> Path:
        """Where ratings are appended."""
        return self.run / "ratings" / f"{self.rater}.jsonl"


@dataclass
class Sitting:
    """A rater at work: the texts, and what has been said about them.

    Attributes:
        request: What was asked.
        texts: In the order in which they are shown, each once.
        said: The same texts by all who said them: arms answer alike now and then.
        labels: That can be given.
        ratings: In the order in which they were given.
    """

    request: RateRequest
    texts: Sequence[Shown]
    labels: tuple[str, ...]
    ratings: list[Rating] = field(default_factory=list[Rating])
    said: Sequence[Shown] = ()

    @property
    def left(self) -> list[Shown]:
        """Texts without a rating, in order."""
        done = {rating.key for rating in self.ratings}
        return [shown for shown in self.texts if shown.key not in done]

    def rate(self, shown: Shown, label: str, sure: str) -> None:
        """Note a rating, on disk before anything else happens."""
        rating = Rating(shown.key, label, sure, self.request.rater)
        file = self.request.ratings_file
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as out:
            out.write(json_line(rating.to_dict()) + "\n")
        self.ratings.append(rating)

    def undo(self) -> bool:
        """Take back the last rating; False if there is none."""
        if not self.ratings:
            return False
        self.ratings.pop()
        lines = [json_line(rating.to_dict()) + "\n" for rating in self.ratings]
        write_text(self.request.ratings_file, "".join(lines))
        return True


def open_sitting(request: RateRequest) -> Sitting:
    """The texts in their order, and the ratings that were given before.

    Raises:
        ArtefactError: If the run has no replies.
        DataError: If the file has no texts, or a kept rating is damaged.
        UnknownNameError: If the run has no such arm.
    """
    texts, labels = _of_file(request) if request.file else _of_run(request)
    every = (*labels, GARBLED)
    chosen = sample(texts, request.n, request.seed)
    kept: list[Rating] = []
    if request.ratings_file.is_file():
        content = request.ratings_file.read_text(encoding="utf-8")
        # A line that a kill has cut off is not there; what follows would be glued to it.
        whole = content[: content.rfind("\n") + 1]
        if whole != content:
            write_text(request.ratings_file, whole)
        shown = {one.key for one in chosen}
        ratings = [rating_from(row, every) for row in parse_jsonl(whole)]
        kept = [rating for rating in ratings if rating.key in shown]
    drawn = {one.key for one in chosen}
    said = [one for one in texts if one.key in drawn]
    return Sitting(request, chosen, every, kept, said)


def close_sitting(sitting: Sitting, judges: Sequence[Judge]) -> dict[str, Any]:
    """Hold the ratings against judges and targets, and write that beside them.

    Returns:
        ``n``, ``agreement`` (one per judge) and ``heard`` (arm → texts, share in which the rater
        heard the target).
    """
    rated = {rating.key for rating in sitting.ratings}
    texts = [shown for shown in sitting.texts if shown.key in rated]
    found: list[Agreement] = []
    for judge in judges if texts else ():
        verdicts = judge([shown.text for shown in texts])
        chosen = {
            shown.key: said
            for shown, said, known in zip(texts, verdicts.chosen, verdicts.judged, strict=True)
            if known
        }
        found.append(agreement_with(judge.name, sitting.ratings, chosen))
    result = {
        "n": len(sitting.ratings),
        "agreement": [asdict(one) for one in found],
        "heard": heard_by_arm(sitting.said, sitting.ratings),
    }
    if texts:
        write_json(sitting.request.ratings_file.with_suffix(".json"), result)
    return result


def _of_run(request: RateRequest) -> tuple[list[Shown], tuple[str, ...]]:
    from affectlens.core.errors import unknown
    from affectlens.pipeline.arm_files import file_of, load_replies

    there = sorted((request.run / "replies").glob("*.jsonl"))
    names = [file.stem for file in there]
    if not there:
        raise ArtefactError(
            f"{request.run} has no replies to rate; evaluate first (`affectlens run --out "
            f"{request.run}`), or name a file with --file."
        )
    for arm in request.arms:
        if arm not in names:
            raise unknown("arm of the run", arm, names)
    texts: list[Shown] = []
    targets: dict[str, None] = {}
    for arm in request.arms or names:
        for reply in load_replies(request.run / file_of(arm)):
            texts.append(Shown(text_key(reply.text), reply.text, reply.emotion, arm))
            targets.update({reply.emotion: None} if reply.emotion else {})
    ours = set(targets) <= set(TONES)
    return texts, TONES if ours else (*targets, "neutral")


def _of_file(request: RateRequest) -> tuple[list[Shown], tuple[str, ...]]:
    from affectlens.pipeline.corpus_choice import CorpusChoice

    corpus = CorpusChoice(str(request.file), columns=request.columns or None, labels="any").load()
    texts = [Shown(text_key(r.text), r.text, r.emotion or "") for r in corpus]
    labels = corpus.labels()
    return texts, TONES if set(labels) <= set(TONES) else labels
