"""What a user's texts do for a run, and what they do not: said before the work starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core import NEUTRAL, DataError
from affectlens.core.sentences import first_sentence_end
from affectlens.pipeline.own.choice import CLASSIFIER, FITTED, OwnCorpus
from affectlens.steering.spec import can_be_named

if TYPE_CHECKING:
    from affectlens.datasets import Corpus
    from affectlens.pipeline.own.groups import Grouped

JUDGE_ROLES = ("judge", "tune")
"""What a judge may learn from: it gives no direction and no test text."""

FEWEST_TO_STEER = 2
FEWEST_TO_LEARN = 4
FEWEST_GROUPS = 8
FEWEST_TO_TEST_CIRCUITS = 3
MANY = 12
"""So many labels make a run long."""


@dataclass(frozen=True)
class Counted:
    """A corpus and what was asked, for counting.

    Attributes:
        asked: How a run is to take it.
        corpus: Its labelled records, as far as they are used.
        emotions: Its labels but the neutral one.
        unlabelled: Records without a label.
        absent: Labels that were named and that no text has.
        others: Labels that were not named, with their texts.
        left_out: Labelled records beyond those that are used.
        events: What the arms would answer; None if nothing can be.
        openers: By label.
    """

    asked: OwnCorpus
    corpus: Corpus
    emotions: tuple[str, ...]
    unlabelled: int
    absent: tuple[str, ...]
    others: Mapping[str, int]
    left_out: int
    events: Corpus | None
    openers: Mapping[str, Sequence[str]]

    @property
    def name(self) -> str:
        """For messages."""
        return self.asked.corpus.name

    @cached_property
    def by_role(self) -> Mapping[tuple[str, str], int]:
        """Texts by role and label."""
        return Counter((r.role, str(r.emotion)) for r in self.corpus)

    def few(self, roles: Sequence[str], fewest: int) -> list[str]:
        """Labels with fewer texts than that in these roles, with their number."""
        counts = {
            e: sum(self.by_role.get((role, e), 0) for role in roles) for e in self.corpus.label_set
        }
        return [f"{e} ({n})" for e, n in counts.items() if n < fewest]

    def carried_over(self) -> bool:
        """Whether there are groups to test a circuit on: replies of two sentences in every label.

        The task itself also leaves out what names a feeling; that needs the model's tokens.
        """
        groups: dict[object, set[str]] = {}
        for record in self.corpus.filter(role="tune"):
            reply = record.reply if record.messages[:-1] else None
            if reply and reply[first_sentence_end(reply) :].strip() and record.emotion:
                groups.setdefault(record.group_key, set()).add(record.emotion)
        complete = [found for found in groups.values() if found >= set(self.emotions)]
        return len(complete) >= FEWEST_TO_TEST_CIRCUITS


def problems(found: Counted) -> list[str]:
    """What is in the way of a run, a sentence each with what to do; empty if nothing is."""
    return list(_labels_missing(found)) or list(_texts_missing(found))


def _labels_missing(found: Counted) -> Iterator[str]:
    name, emotions = found.name, found.emotions
    if found.corpus.design == "elicited":
        yield (
            f"{name} asks for its labels by system prompt and holds no replies; add a column reply "
            "with what was answered, and leave out the system prompt."
        )
    if wrong := [e for e in emotions if not can_be_named(e)]:
        yield (
            f"Nobody could ask for {', '.join(map(repr, wrong))} in a steering spec; rename the "
            "label, or, if it stands for no tone, name it with --neutral."
        )
    if len(emotions) < 2:
        only = emotions[0] if emotions else NEUTRAL
        yield (
            f"{name} has the label {only} only{' beside neutral' if _neutral(found) else ''}; "
            "directions need two labels or more to be told apart, so add texts of another."
        )


def _texts_missing(found: Counted) -> Iterator[str]:
    name, corpus = found.name, found.corpus
    scenarios = len(corpus.scenarios())
    if scenarios < FEWEST_GROUPS:
        yield (
            f"{name} has {scenarios} groups, and {FEWEST_GROUPS} are needed to fit, to choose "
            "strengths and to test on groups apart; add groups, or give each text its own if they "
            "do not belong together."
        )
        return
    if few := found.few(("direction",), FEWEST_TO_STEER):
        yield (
            f"Too few texts give the directions of {', '.join(few)}: each label needs "
            f"{FEWEST_TO_STEER} of the split fit; add some, or leave the label out with --labels."
        )
    fitted = found.asked.judge_kind == FITTED
    fewest = FEWEST_TO_LEARN if fitted else FEWEST_TO_STEER
    if few := found.few(JUDGE_ROLES, fewest):
        named = ", or name a judge that knows the labels with --judge" if fitted else ""
        yield (
            f"Too few texts are left for judges of {', '.join(few)}: each label needs {fewest} "
            f"outside the groups that give directions and test; add some, leave the label out with "
            f"--labels{named}."
        )
    if few := found.few(("test",), 1):
        named = ", ".join(part.split(" (")[0] for part in few)
        yield (
            f"No text of the split test has {named}, so no judge could be examined on it; add "
            "groups with it, or leave the label out with --labels."
        )
    for split in ("fit", "tune", "test"):
        if not any(r.split == split for r in corpus):
            yield (
                f"{name} has no text of the split {split}; fill it in, or leave out the column so "
                "that splits are made."
            )
    yield from _prompts_missing(found)
    yield from _outputs_missing(found)
    if found.openers and (lacking := [e for e in found.emotions if not found.openers.get(e)]):
        yield (
            f"{found.asked.openers} has no opener for {', '.join(lacking)}; give every label one, "
            "or leave out --openers."
        )


def _outputs_missing(found: Counted) -> Iterator[str]:
    """Labels that a named classifier has no output for."""
    if found.asked.judge_kind != CLASSIFIER:
        return
    from affectlens.evaluation.judges import classifier_labels

    try:
        classifier_labels(Path(str(found.asked.judge)), found.corpus.label_set)
    except DataError as error:
        yield str(error)


def _prompts_missing(found: Counted) -> Iterator[str]:
    if found.events is None:
        yield (
            f"{found.asked.prompts or found.name} has no message of a user that could be answered; "
            "name prompts to steer on with --prompts."
        )
        return
    splits = {record.split for record in found.events}
    for split in ("fit", "tune", "test"):
        if split not in splits:
            yield (
                f"There is no prompt of the split {split} to steer on; give more prompts with "
                "--prompts."
            )


def said_before(found: Counted, made: Grouped) -> Iterator[str]:
    """What a run on these texts leaves out, and what follows from that, a sentence each."""
    name, emotions = found.name, found.emotions
    if found.unlabelled:
        yield f"{found.unlabelled} texts of {name} have no label and are left out."
    if found.absent and found.asked.corpus.labels is not None:
        yield f"No text of {name} has the label {', '.join(found.absent)}; the run goes without."
    if found.others:
        listed = ", ".join(f"{label} ({n})" for label, n in found.others.items())
        yield f"Texts of {name} with labels that were not named are left out: {listed}."
    if found.left_out:
        yield (
            f"{found.left_out} further texts of {name} are not used; take more with --per-label."
        )
    if len(emotions) >= MANY:
        yield (
            f"{len(emotions)} labels take {len(emotions) / 6:.0f} times as long as six; choose "
            "some with --labels if that is too long."
        )
    if not _neutral(found):
        yield (
            "No label stands for no tone, so every text is given one of the others; if one does, "
            "name it with --neutral."
        )
    worst = max(made.lacking, key=lambda e: made.lacking[e], default=None)
    if not made.real:
        why = (
            f"most groups lack a label ({worst} is missing from {made.lacking[worst]} of "
            f"{made.groups})"
            if worst is not None and made.lacking[worst]
            else "no content is told in every label"
        )
        yield (
            f"In {name} {why}, so content does not cancel: directions are differences of class "
            "means and may hold what the texts of a label are about; name what belongs together "
            "with --column group=…."
        )
    elif worst is not None and made.lacking[worst]:
        lacking = ", ".join(f"{e} from {n}" for e, n in made.lacking.items() if n)
        yield (
            f"Of {made.groups} groups that could give directions those that lack a label are left "
            f"out ({lacking} missing)."
        )
    if not any(r.reply is not None and r.messages[:-1] for r in found.corpus):
        yield (
            "The texts answer nothing, so they are read as answers to one plain instruction"
            + (
                ", and the arms answer the shipped events; name prompts of your own with --prompts."
                if found.asked.prompts is None
                else "."
            )
        )
    if not found.openers:
        yield (
            "There are no openers, so the model does not express the labels itself and vectors "
            "come from the texts alone; give first sentences of each label with --openers."
        )
    if not found.carried_over():
        yield (
            f"The circuit stays ranked and untested: that takes {FEWEST_TO_TEST_CIRCUITS} groups "
            "of the split tune that answer one prompt in every label with two sentences or more."
        )


def _neutral(found: Counted) -> bool:
    return NEUTRAL in found.corpus.label_set
