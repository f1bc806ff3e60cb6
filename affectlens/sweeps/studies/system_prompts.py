"""What a probe reads of messages and replies under system prompts, line by line, with controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from affectlens.core.errors import DataError
from affectlens.core.statistics import holm, paired_difference
from affectlens.datasets.schema import Corpus
from affectlens.probes.held_out import HeldOut
from affectlens.probes.scores import scores
from affectlens.sweeps.request import Fitting
from affectlens.sweeps.studies.answers import behind
from affectlens.sweeps.studies.base import Row, line, mean_with_interval
from affectlens.sweeps.studies.moved import agreement_by_chance, beyond_random, variation
from affectlens.sweeps.studies.rulers import Ruler

if TYPE_CHECKING:
    from affectlens.models import LanguageModel

NONE, UNRELATED = "none", "unrelated"
USER, REPLY, ALONE = "user's message", "reply", "reply, read without the prompt"
AGREES, FOLLOWS = "agrees with the user's label", "reads as the user's message"
CHANGED, DISTANCE = "changed", "distance"

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Seen:
    """Activations of messages and replies under every prompt, and what the rulers say.

    Attributes:
        ids, groups, labels: Of the texts that every prompt has a reply to.
        rulers: The probes.
        at: Activations by prompt and what is read, ``[n, d]``.
        replies: By prompt.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: tuple[str, ...]
    rulers: Ruler
    at: Mapping[tuple[str, str], torch.Tensor]
    replies: Mapping[str, Corpus]

    @classmethod
    def of(cls, model: LanguageModel, rulers: Ruler, replies: Mapping[str, Corpus]) -> Seen:
        """Read replies of a model that every prompt has, with and without the prompt.

        Raises:
            DataError: If there are fewer than two.
        """
        from affectlens.activations import capture

        everywhere = set[str].intersection(*({r.id for r in c} for c in replies.values()))
        if len(everywhere) < 2:
            raise DataError("Fewer than two texts have a reply under every system prompt.")
        mine = {
            name: replace(c, records=tuple(r for r in c if r.id in everywhere))
            for name, c in replies.items()
        }
        site = rulers.true.site
        at: dict[tuple[str, str], torch.Tensor] = {}
        for name, corpus in mine.items():
            both = ("mean:user", "mean:reply")
            store = capture(model, corpus, sites=site, positions=both)
            at[name, USER], at[name, REPLY] = (store.to_torch(site, where) for where in both)
            bare = replace(corpus, records=tuple(behind(r, r.text, None) for r in corpus))
            at[name, ALONE] = (
                at[name, REPLY]
                if name == NONE
                else capture(model, bare, sites=site, positions="mean:reply").to_torch(site)
            )
        first = mine[NONE].records
        return cls(
            tuple(r.id for r in first),
            tuple(r.scenario for r in first),
            tuple(str(r.emotion) for r in first),
            rulers,
            at,
            mine,
        )

    def probabilities(self, name: str, what: str, *, shuffled: bool = False) -> Floats:
        """Of the classes, of each text."""
        return self.rulers.probabilities(self.at[name, what], shuffled=shuffled)

    def table(self) -> list[Row]:
        """Every reply, with what is read of it."""
        found: list[Row] = []
        for name, corpus in self.replies.items():
            read = {what: self.probabilities(name, what).argmax(1) for what in (USER, REPLY, ALONE)}
            for i, record in enumerate(corpus):
                said = {what: self.rulers.classes[int(of[i])] for what, of in read.items()}
                user, reply = record.messages[-2].content, record.text
                found.append(
                    {"system": name, "id": record.id, "label": record.emotion, "user": user,
                     "reply_text": reply, **said}
                )  # fmt: skip
        return found


def quality_rows(seen: Seen, fitting: Fitting) -> list[Row]:
    """How well the probe reads what it was fitted on, held out, and what users say."""
    held = seen.rulers.held
    best = scores(held, draws=fitting.draws, random=fitting.seed).rows(seen.rulers.best)[0]
    return [
        line(NONE, "the probe's own corpus", "held-out accuracy", "accuracy", best["value"],
             low=best["low"], high=best["high"], rows=len(held), groups=len(set(held.groups)),
             beside=seen.rulers.majority, control="always the same")
    ]  # fmt: skip


def agreement_rows(seen: Seen, name: str, fitting: Fitting) -> list[Row]:
    """How often what is read is the user's label, with all scores, or what the message reads as."""
    index = {c: i for i, c in enumerate(seen.rulers.classes)}
    truth = torch.tensor([index[label] for label in seen.labels])
    found: list[Row] = []
    for what in (USER, REPLY, ALONE):
        p = seen.probabilities(name, what)
        wrong = seen.probabilities(name, what, shuffled=True).argmax(1)
        outputs = torch.from_numpy(np.log(p + 1e-12))[None].float()
        held = HeldOut(seen.ids, seen.groups, truth, outputs, seen.rulers.classes)
        chance, share = agreement_by_chance(p.argmax(1), truth.numpy(), seen.groups, fitting.draws)
        size = {"rows": len(truth), "groups": len(set(seen.groups))}
        one, *others = scores(held, draws=fitting.draws, random=fitting.seed).rows(0)
        found.append(
            line(name, what, AGREES, "accuracy", one["value"], low=one["low"], high=one["high"],
                 p=share, beside=chance, control="by frequency alone", **size)
        )  # fmt: skip
        found += [
            line(name, what, row["score"], row["score"], row["value"], low=row["low"],
                 high=row["high"], **size)
            for row in others
        ]  # fmt: skip
        found.append(
            line(name, f"{what}, probe of shuffled labels", AGREES, "accuracy",
                 (wrong == truth.numpy()).mean(), **size)
        )  # fmt: skip
        if what != USER:
            heard = seen.probabilities(name, USER).argmax(1)
            same = (p.argmax(1) == heard).astype(np.float64)
            chance, share = agreement_by_chance(p.argmax(1), heard, seen.groups, fitting.draws)
            found.append(
                line(name, what, FOLLOWS, "share", p=share, beside=chance,
                     control="by frequency alone",
                     **mean_with_interval(same, seen.groups, fitting.draws, fitting.seed))
            )  # fmt: skip
    return found


def moved_rows(seen: Seen, name: str, fitting: Fitting) -> list[Row]:
    """What a system prompt changes, in pairs with none on the same texts."""
    found: list[Row] = []
    groups, seed = seen.groups, fitting.seed
    for what in (USER, REPLY, ALONE):
        now, before = (seen.probabilities(one, what) for one in (name, NONE))
        changed = _changed(seen, name, what)
        row = line(name, what, CHANGED, "share of texts read otherwise",
                   **mean_with_interval(changed, groups, fitting.draws, seed))  # fmt: skip
        if name != UNRELATED and (UNRELATED, what) in seen.at:
            other = _changed(seen, UNRELATED, what)
            more = paired_difference(changed, other, groups, draws=fitting.draws)
            row |= {"beside": float(other.mean()), "control": f"under the prompt {UNRELATED}"}
            row |= {"p": more.p}
        found.append(row)
        apart = variation(now, before, groups, seed)
        found.append(
            line(name, what, DISTANCE, "total variation", apart.value, p=apart.p,
                 beside=apart.null, control="swapped system prompts", rows=len(now),
                 groups=len(set(groups)))
        )  # fmt: skip
        wrong = [seen.probabilities(one, what, shuffled=True) for one in (name, NONE)]
        apart = variation(wrong[0], wrong[1], groups, seed)
        found.append(
            line(name, f"{what}, probe of shuffled labels", DISTANCE, "total variation",
                 apart.value, p=apart.p, beside=apart.null, control="swapped system prompts",
                 rows=len(now), groups=len(set(groups)))
        )  # fmt: skip
        found += _by_class(seen, name, what, fitting)
    return found


def _changed(seen: Seen, name: str, what: str) -> Floats:
    """1 where another label is likeliest than without a system prompt."""
    now, before = (seen.probabilities(one, what).argmax(1) for one in (name, NONE))
    return (now != before).astype(np.float64)


def _by_class(seen: Seen, name: str, what: str, fitting: Fitting) -> list[Row]:
    """Change of each class's probability, and of the activations along its direction."""
    now, before = (seen.probabilities(one, what) for one in (name, NONE))
    moved = [
        paired_difference(now[:, i], before[:, i], seen.groups, draws=fitting.draws)
        for i in range(now.shape[1])
    ]
    corrected = holm([one.p for one in moved])
    shift, random, p = beyond_random(
        seen.at[name, what].double().numpy(),
        seen.at[NONE, what].double().numpy(),
        seen.rulers.directions(),
        fitting.seed,
    )
    found: list[Row] = []
    for i, label in enumerate(seen.rulers.classes):
        one = moved[i]
        size = {"rows": len(now), "groups": one.clusters}
        found.append(
            line(name, what, label, "change of probability", one.mean, low=one.low, high=one.high,
                 p=float(corrected[i]), beside=0.0, control="no change, Holm over labels", **size)
        )  # fmt: skip
        found.append(
            line(name, what, label, "shift along the direction, SD", shift[i], p=float(p[i]),
                 beside=random, control="size along random directions", **size)
        )  # fmt: skip
    return found
