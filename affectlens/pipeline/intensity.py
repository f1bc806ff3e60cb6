"""Calibrating a pack: doses on tuning events, their lines into the pack, the check on test events.

Texts are kept emotion by emotion as soon as they are there; a measurement that was stopped goes on
where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from affectlens.core import DataError, Provenance, fingerprint
from affectlens.core.errors import unknown
from affectlens.core.progress import progress
from affectlens.evaluation.divergence import kl_to_unsteered
from affectlens.evaluation.dose_response import fit_dose_response
from affectlens.evaluation.intensity import (
    ASKED,
    DosePoint,
    EmotionCheck,
    check_emotion,
    dose_point,
    heard_in,
    heard_responses,
)
from affectlens.evaluation.judges.base import require_labels
from affectlens.evaluation.naming import mask_feelings
from affectlens.evaluation.replies import Request, encode_event, generate_replies
from affectlens.evaluation.reply import Reply
from affectlens.pipeline.fingerprints import generated_by
from affectlens.pipeline.kept_replies import read_replies, write_replies
from affectlens.pipeline.settings import REPLIES
from affectlens.steering.spec import MAX_STRENGTH, SteeringSpec

if TYPE_CHECKING:
    from affectlens.datasets import Record
    from affectlens.evaluation.judges import Judge
    from affectlens.models import LanguageModel
    from affectlens.models.generation.decoding import GenerationSettings
    from affectlens.steering import SteeringPack
    from affectlens.steering.intensity import DoseResponse


PLENTY = 0.95
"""Heard so strongly, nothing stronger is worth trying."""


@dataclass(frozen=True)
class IntensitySettings:
    """How a pack is calibrated.

    Attributes:
        mode: That is measured; None: the pack's default.
        emotions: Default: all of the pack.
        doses: Shares of the recommended dose that are tried, beside none.
        extensions: How many stronger doses may be tried of an emotion that is heard below
            ``PLENTY`` and whose text does not break, each as much stronger as the last step was.
        events: Tuning events that are answered at each dose; None: all, at most 16.
        test_events: Test events on which the result is checked; 0 leaves the check out, None takes
            all, at most 40.
        kl_events: Of the tuning events, on how many the distance to the unsteered distribution is
            measured; 0 leaves the unit ``kl`` out.
        max_perplexity_ratio: Doses that cost more, and all above them, are out of range.
        masked: Hear replies without their feeling words.
        generation: Of all replies.
    """

    mode: str | None = None
    emotions: tuple[str, ...] = ()
    doses: tuple[float, ...] = (0.3, 0.45, 0.6, 0.75, 0.9, 1.1, 1.4)
    extensions: int = 2
    events: int | None = None
    test_events: int | None = None
    kl_events: int = 4
    max_perplexity_ratio: float = 4.0
    masked: bool = False
    generation: GenerationSettings = field(default_factory=lambda: REPLIES)

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.doses, self.doses[1:], strict=False))
        if not self.doses or not rising or not 0 < self.doses[0] <= self.doses[-1] < np.inf:
            raise DataError(f"Doses to try must be rising shares above 0, not {list(self.doses)}.")
        for name, least in (("extensions", 0), ("events", 1), ("test_events", 0), ("kl_events", 0)):
            if (value := getattr(self, name)) is not None and value < least:
                raise DataError(f"{name} must be {least} or more, not {value}.")
        if not self.max_perplexity_ratio > 1:
            raise DataError(
                f"The perplexity ratio must be above 1, not {self.max_perplexity_ratio}."
            )


@dataclass(frozen=True)
class Calibration:
    """What came of it.

    Attributes:
        pack: With the lines.
        mode: That was measured.
        points: What every dose did.
        silent: Emotions without a line, and why.
        checks: On test events; empty if it was left out.
    """

    pack: SteeringPack
    mode: str
    points: Sequence[DosePoint]
    silent: Mapping[str, str]
    checks: Sequence[EmotionCheck]

    def table_rows(self) -> list[dict[str, object]]:
        """The points."""
        return [point.to_dict() for point in self.points]


@dataclass
class Calibrating:
    """One measurement.

    Attributes:
        model: That the pack is for.
        judge: Blind.
        pack: To calibrate.
        tune, test: Events, as many as there are.
        settings: How.
        folder: Where texts are kept.
    """

    model: LanguageModel
    judge: Judge
    pack: SteeringPack
    tune: Sequence[Record]
    test: Sequence[Record]
    settings: IntensitySettings
    folder: Path

    def __post_init__(self) -> None:
        self.mode = self.settings.mode or self.pack.modes[0]
        self.pack.points(self.mode)
        self.emotions = self.settings.emotions or self.pack.emotions
        for emotion in self.emotions:
            if emotion not in self.pack.emotions:
                raise unknown("emotion", emotion, self.pack.emotions)
        require_labels(self.judge, self.emotions)

    def measure(self) -> Calibration:
        """Measure all doses that are missing, fit, and check.

        Raises:
            DataError: If no emotion is heard more at any dose than without steering.
        """
        points: list[DosePoint] = []
        for emotion in self.emotions:
            replies = self._replies(
                f"doses_{emotion}", self._requests(emotion, self.doses(emotion))
            )
            points += self._extended(emotion, self._points(emotion, replies))
        asked = self.settings
        found, silent = heard_responses(
            points, max_perplexity_ratio=asked.max_perplexity_ratio, masked=asked.masked
        )
        if not found:
            emotion, why = next(iter(silent.items()))
            raise DataError(
                f"No emotion can be calibrated in mode {self.mode}; {emotion}: {why} "
                "`affectlens tune search` says what is in the way."
            )
        pack = self.pack.with_responses("heard", self.mode, found)
        if asked.kl_events:
            pack = pack.with_responses("kl", self.mode, self._kl())
        checks = self._checks(pack, found) if self.test else []
        return Calibration(pack, self.mode, points, silent, checks)

    def doses(self, emotion: str) -> list[float]:
        """In natural doses, without 0."""
        unit = abs(self.pack.recommended[self.mode][emotion]) or 1.0
        most = MAX_STRENGTH["natural"]
        return sorted({min(share * unit, most) for share in self.settings.doses})

    def _spec(self, emotion: str, strength: float, unit: str) -> SteeringSpec:
        return SteeringSpec(
            {emotion: strength}, mode=self.mode, unit=unit, emotions=self.pack.emotions
        )

    def _requests(self, emotion: str, doses: Sequence[float]) -> list[Request]:
        return [
            Request(event, emotion, self._spec(emotion, dose, "natural"))
            for dose in doses
            for event in self.tune
        ]

    def _extended(self, emotion: str, points: list[DosePoint]) -> list[DosePoint]:
        """With stronger doses, while they are within limits and more can be heard."""
        asked, plain = self.settings, self._plain("tune", self.tune)
        for _ in range(asked.extensions):
            last, before = points[-1], points[-2]
            heard = last.masked if asked.masked else last.heard
            if heard >= PLENTY or not last.perplexity_ratio <= asked.max_perplexity_ratio:
                break
            step = last.dose / before.dose if before.dose else 2.0
            dose = min(last.dose * step, MAX_STRENGTH["natural"])
            if dose <= last.dose:
                break
            name = f"doses_{emotion}_{fingerprint(dose)}"
            replies = self._replies(name, self._requests(emotion, [dose]))
            points = [*points, dose_point(emotion, dose, replies, plain, self.judge)]
        return points

    def _points(self, emotion: str, replies: Sequence[Reply]) -> list[DosePoint]:
        plain = self._plain("tune", self.tune)
        n = len(self.tune)
        points = [dose_point(emotion, 0.0, plain, plain, self.judge)]
        for i, dose in enumerate(self.doses(emotion)):
            mine = replies[i * n : (i + 1) * n]
            points.append(dose_point(emotion, dose, mine, plain, self.judge))
        return points

    def _kl(self) -> dict[str, DoseResponse]:
        """Nats per token of every dose, on unsteered replies; they rise from 0 on."""
        events = self.tune[: self.settings.kl_events]
        said = self._plain("tune", self.tune)[: len(events)]
        prompts = [encode_event(self.model, event) for event in events]
        read = self.model.tokenizer
        replies = [read(reply.text, add_special_tokens=False)["input_ids"] for reply in said]
        found: dict[str, DoseResponse] = {}
        with progress("distance to unsteered", len(self.emotions)) as advance:
            for emotion in self.emotions:
                doses = self.doses(emotion)
                specs = [self._spec(emotion, dose, "natural") for dose in doses for _ in events]
                nats = kl_to_unsteered(
                    self.model, self.pack, specs, prompts * len(doses), replies * len(doses)
                )
                means = np.nanmean(nats.reshape(len(doses), -1), axis=1)
                with suppress(DataError):  # of vectors that move nothing there is no line
                    found[emotion] = fit_dose_response([0.0, *doses], [0.0, *means.tolist()])
                advance(1)
        return found

    def _checks(self, pack: SteeringPack, found: Mapping[str, DoseResponse]) -> list[EmotionCheck]:
        plain = self._heard(self._plain("test", self.test))
        checks: list[EmotionCheck] = []
        for emotion, response in found.items():
            specs = [self._within(pack, emotion, x, response) for x in ASKED]
            asked = [Request(event, emotion, spec) for spec in specs for event in self.test]
            name = f"asked_{emotion}_{fingerprint(response.doses, response.values)}"
            replies = self._replies(name, asked, pack)
            column = self.pack.emotions.index(emotion)
            heard = self._heard(replies)[:, column].reshape(len(ASKED), -1)
            by_asked = {x: row.tolist() for x, row in zip(ASKED, heard, strict=True)}
            unsteered = plain[:, column].tolist()
            checks.append(check_emotion(emotion, by_asked, unsteered, response.range[1]))
        return checks

    def _within(
        self, pack: SteeringPack, emotion: str, asked: float, response: DoseResponse
    ) -> SteeringSpec:
        """A request for an intensity; what lies beyond the range asks for its end."""
        most = min(asked, response.range[1])
        return pack.resolve(self._spec(emotion, most, "heard"))

    def _heard(self, replies: Sequence[Reply]) -> np.ndarray:
        texts = [reply.text for reply in replies]
        if self.settings.masked:
            texts = [mask_feelings(text) for text in texts]
        return heard_in(self.judge, texts, self.pack.emotions)

    def _plain(self, name: str, events: Sequence[Record]) -> list[Reply]:
        return self._replies(f"unsteered_{name}", [Request(event, "") for event in events])

    def _replies(
        self, name: str, requests: Sequence[Request], pack: SteeringPack | None = None
    ) -> list[Reply]:
        """Of these requests, kept under a name."""
        path = self.folder / self._key / f"{name}.json"
        kept = read_replies(path)
        if len(kept) == len(requests):
            return kept
        with progress(name.replace("_", " "), len(requests)) as advance:
            replies = generate_replies(
                self.model,
                name,
                requests,
                self.settings.generation,
                pack=pack or self.pack,
                advance=advance,
            )
        write_replies(path, replies)
        return read_replies(path)  # as a later run will see them, rounded

    @cached_property
    def _key(self) -> str:
        asked = self.settings
        return fingerprint(
            generated_by(self.model),
            replace(self.pack, responses={}, provenance=Provenance("pack")).fingerprint,
            self.mode,
            asked.doses,
            asdict(asked.generation),
            [event.id for event in self.tune],
            [event.id for event in self.test],
        )
