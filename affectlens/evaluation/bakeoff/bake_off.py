"""All methods on one model: vectors, tuning within a budget, replies to test events, scores."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from affectlens.core.artefact import fingerprint, package_version
from affectlens.core.errors import DataError
from affectlens.core.progress import progress
from affectlens.evaluation.arms import UNSTEERED
from affectlens.evaluation.backends import TRANSFORMERS
from affectlens.evaluation.bakeoff.candidates import (
    Candidate,
    Look,
    chosen,
    search,
    tokens_of,
)
from affectlens.evaluation.bakeoff.kept_texts import Elsewhere, KeptTexts
from affectlens.evaluation.bakeoff.packs import KeptPacks
from affectlens.evaluation.bakeoff.result import BakeOff, entry_of
from affectlens.evaluation.bakeoff.settings import BakeOffSettings
from affectlens.evaluation.perplexity import ratio_of_replies
from affectlens.evaluation.replies import Request, encode_event
from affectlens.evaluation.reply_scores import Scores, known_mean, score_replies
from affectlens.steering.methods import METHODS, Material, Method
from affectlens.steering.operators import OPERATORS
from affectlens.steering.spec import SteeringSpec

if TYPE_CHECKING:
    from affectlens.datasets import Record
    from affectlens.evaluation.backends import Backend, BackendKind, Ids
    from affectlens.evaluation.judges import Judge
    from affectlens.evaluation.reply import Reply
    from affectlens.evaluation.reply_scores import Embed
    from affectlens.models import LanguageModel
    from affectlens.steering import SteeringPack

Told = Callable[[str, str], object]


@dataclass(frozen=True, eq=False)
class Jury:
    """Who judges, the same for all methods.

    Attributes:
        judge: Blind; its verdicts are the accuracy.
        lexicon: The second judge.
        embed: Sentence embeddings, for the topic.
        openers: First sentences that vectors were made from.
    """

    judge: Judge
    lexicon: Judge
    embed: Embed
    openers: Sequence[str] = ()

    @classmethod
    def built_in(cls, openers: Sequence[str] = ()) -> Jury:
        """The judges that come along, for our six emotions.

        Args:
            openers: First sentences that vectors were made from; without them no reply can be
                found to copy one.
        """
        from affectlens.evaluation.judges import load_judge
        from affectlens.evaluation.topic import Embedder

        return cls(load_judge("encoder"), load_judge("lexicon"), Embedder(), openers)

    def scores(
        self, replies: Sequence[Reply], unsteered: Sequence[Reply], emotions: Sequence[str]
    ) -> Scores:
        """See `score_replies`."""
        return score_replies(
            replies,
            unsteered,
            judge=self.judge,
            lexicon=self.lexicon,
            embed=self.embed,
            emotions=emotions,
            openers=self.openers,
        )


@dataclass(frozen=True, eq=False)
class Bench:
    """What all methods share.

    Attributes:
        material: What vectors are made of.
        settings: What is compared.
        jury: Who judges.
        texts: Generates and keeps.
        tune: Prompts on which strengths and wordings are chosen.
        test: Prompts that are answered in the end.
    """

    material: Material
    settings: BakeOffSettings
    jury: Jury
    texts: KeptTexts
    tune: Sequence[Record]
    test: Sequence[Record]

    def replies(
        self, name: str, requests: Sequence[Request], pack: SteeringPack | None, what: str
    ) -> list[Reply]:
        """Generate, or read what is kept, and say how far that is."""
        with progress(f"{name}: {what}", len(requests)) as advance:
            return self.texts.replies(name, requests, pack, advance)

    def unsteered(self, events: Sequence[Record]) -> list[Reply]:
        """Replies of the model as it is."""
        plain = [Request(event, "") for event in events]
        return self.replies(UNSTEERED, plain, None, "answering")

    def tuned(
        self, method: Method, pack: SteeringPack | None, unsteered: Sequence[Reply]
    ) -> dict[str, list[Look]]:
        """The looks at a method, emotion by emotion."""

        def measure(asked: Sequence[tuple[str, Candidate]]) -> list[Look]:
            requests = [
                self.request(method, event, emotion, candidate)
                for event in self.tune  # a prompt under many requests is run once
                for emotion, candidate in asked
            ]
            replies = self.replies(method.name, requests, pack, "tuning")
            scores = self.jury.scores(replies, unsteered, self.settings.emotions)
            return [
                _look(emotion, candidate, scores, slice(i, None, len(asked)), unsteered)
                for i, (emotion, candidate) in enumerate(asked)
            ]

        settings = self.settings
        return search(
            method,
            settings.emotions,
            measure,
            looks=settings.looks,
            limit=settings.max_perplexity_ratio,
        )

    def request(self, method: Method, event: Record, emotion: str, candidate: Candidate) -> Request:
        """A method's request for an emotion.

        Args:
            method: Which.
            event: The prompt.
            emotion: The target.
            candidate: Strength and wording.
        """
        spec, wording = None, candidate.wording
        if candidate.strength is not None:
            emotions = self.material.emotions
            unit = "natural" if OPERATORS[method.operator].share is None else "recommended"
            spec = SteeringSpec(
                {method.aims(emotion, emotions): candidate.strength},
                mode=method.mode,
                positions=method.positions,
                operator=method.operator,
                unit=unit,
                gate=None if method.gate is None else method.gate.replace("{emotion}", emotion),
                emotions=emotions,
            )
        if wording is None:
            return Request(event, emotion, spec)
        shown = self.material.examples(emotion, wording.examples) if wording.examples else ()
        return Request(event, emotion, spec, wording.asks(emotion), shown)


@dataclass(frozen=True)
class Generating:
    """What generates the replies of a bake-off.

    Attributes:
        kind: Of the back end.
        place: Which of its kind: an address, an interpreter; "" if there is only one.
        open: Has it there while a block runs, for the packs in these files and prompts like this.
    """

    kind: BackendKind
    place: str
    open: Callable[[Mapping[Path, SteeringPack], Ids], AbstractContextManager[Backend]]


def bake_off(
    material: Material,
    jury: Jury,
    folder: Path,
    settings: BakeOffSettings | None = None,
    *,
    generating: Generating | None = None,
    told: Told = lambda _method, _what: None,
) -> BakeOff:
    """Tune every method within the same budget, let it answer the test events, and score it.

    Vectors and replies are kept in the folder as they come, under keys of all that they depend on:
    what was stopped, however rudely, goes on where it was.

    Args:
        material: What has been found in the model.
        jury: Who judges.
        folder: Where vectors and replies are kept.
        settings: What is compared; default: all methods.
        generating: What generates, opened when there is something to generate; methods it cannot
            do are answered here. Default: the model, in this process.
        told: Hears of each method what is being done, and how it came out.

    Raises:
        DataError: If the material lacks an emotion, or the model what a method steers.
        ArtefactError: If what is kept is damaged.
        AffectLensError: If the back end cannot be opened.
    """
    from affectlens.datasets import load, spread

    settings = settings or BakeOffSettings()
    lacking = [e for e in settings.emotions if e not in material.emotions]
    if lacking:
        raise DataError(
            f"There are no vectors for {', '.join(lacking)}; name emotions among "
            f"{', '.join(material.emotions)}."
        )
    methods = [METHODS[name] for name in settings.methods]
    model = material.model
    made_by = _versions(model)
    kept = KeptPacks(material, folder / "packs", made_by)
    packs: dict[str, SteeringPack | None] = {}
    files: dict[Path, SteeringPack] = {}
    for method in methods:  # what cannot be made is told before anything is generated
        told(method.name, "vectors")
        packs[method.name] = made = kept.of(method)
        if made is not None:
            files[kept.file(method)] = made
    events = load("events")
    with _elsewhere(generating, files, encode_event(model, next(iter(events)))) as elsewhere:
        bench = Bench(
            material,
            settings,
            jury,
            KeptTexts(
                model, folder / "texts", settings.generation, made_by, settings.chunk, elsewhere
            ),
            spread(events.filter(split="tune"), settings.tune_events),
            spread(events.filter(split="test"), settings.events),
        )
        tuning, reference = bench.unsteered(bench.tune), bench.unsteered(bench.test)
        scores = {UNSTEERED: jury.scores(reference, reference, settings.emotions)}
        looks: dict[str, dict[str, list[Look]]] = {}
        best: dict[str, dict[str, Look]] = {}
        generated_by = {UNSTEERED: bench.texts.where([])}
        for method in methods:
            pack = packs[method.name]
            told(method.name, "tuning")
            looks[method.name] = bench.tuned(method, pack, tuning)
            best[method.name] = {
                emotion: chosen(seen, settings.max_perplexity_ratio)
                for emotion, seen in looks[method.name].items()
            }
            told(method.name, "answering")
            requests = [
                bench.request(method, event, emotion, look.candidate)
                for event in bench.test
                for emotion, look in best[method.name].items()
            ]
            generated_by[method.name] = bench.texts.where(requests)
            replies = bench.replies(method.name, requests, pack, "answering")
            scores[method.name] = jury.scores(replies, reference, settings.emotions)
    entries = [
        entry_of(
            name,
            scores[name],
            reference,
            looks.get(name, {}),
            best.get(name, {}),
            tokens_of(looks.get(name, {})),
            generated_by[name],
            seed=settings.seed,
        )
        for name in scores
    ]
    return BakeOff.of(model.name, settings, entries, scores)


@contextmanager
def _elsewhere(
    generating: Generating | None, packs: Mapping[Path, SteeringPack], prompt: Ids
) -> Generator[Elsewhere | None]:
    """Another back end than this process; it is opened when it is first asked for a reply."""
    if generating is None or generating.kind is TRANSFORMERS:
        yield None
        return
    kind, open_ = generating.kind, generating.open
    with ExitStack() as stack:

        @cache
        def opened() -> Backend:
            return stack.enter_context(open_(packs, prompt))

        yield Elsewhere(f"{kind.name} {generating.place}".strip(), kind.every_spec, opened)


def _versions(model: LanguageModel) -> str:
    import torch
    import transformers

    return fingerprint(
        package_version(),
        torch.__version__,
        transformers.__version__,
        model.fingerprint,
        str(model.dtype),
        str(model.device),
    )


def _look(
    emotion: str,
    candidate: Candidate,
    scores: Scores,
    own: slice,
    unsteered: Sequence[Reply],
) -> Look:
    replies = scores.replies[own]  # every reply has a target, and so one row
    return Look(
        emotion,
        candidate,
        known_mean(scores.hit[own]),
        known_mean(scores.masked[own]),
        ratio_of_replies(replies, unsteered),
        float(np.nan_to_num(known_mean(scores.masked_harmonic[own]))),
        sum(reply.tokens for reply in replies),
    )
