"""How long an emotion stays readable while a reply is written: probes at its k-th token.

One probe reads all offsets: the mean of each is removed from its rows, which is what an embedding
of the offset does for a linear probe ("Decoding Emotion in the Deep", arXiv 2510.04064, learns
one). Beside it at every offset stand a probe of this offset alone, the same probe on orders of the
labels by text, on the word that stands there (the embeddings), and on the reply's length alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.errors import DataError
from affectlens.core.permutations import westfall_young
from affectlens.pipeline.corpus_choice import CorpusChoice
from affectlens.probes.crossval import cross_validate, fit_probes, out_of_fold
from affectlens.probes.design import Design, make_design
from affectlens.probes.estimators import PROBES, ProbeKind
from affectlens.probes.fitting import EMBEDDINGS
from affectlens.probes.held_out import HeldOut
from affectlens.probes.scores import scores
from affectlens.probes.targets import Labels
from affectlens.sweeps.controls.base import TOL, some_rows
from affectlens.sweeps.controls.permutation import permuted
from affectlens.sweeps.corpora import Texts, load_texts
from affectlens.sweeps.kept import KeptRows
from affectlens.sweeps.reading import Reader
from affectlens.sweeps.request import Fitting, SweepRequest
from affectlens.sweeps.studies.answers import Answering, answered
from affectlens.sweeps.studies.base import Row, StudyResult, Watch, line
from affectlens.sweeps.studies.reply_tokens import POSITION, ReplyTokens, TokenDesign

if TYPE_CHECKING:
    from affectlens.core.places import Site

NAME = "persistence"
SHARED, OWN = "one probe of all offsets", "a probe of each offset"
WORD, LENGTH, PERMUTED = "the word alone", "length alone", "permuted labels"


@dataclass(frozen=True)
class PersistenceRequest:
    """What is asked.

    Attributes:
        model: Name, hub id, folder or GGUF file.
        corpus: Chats with replies, whose labels are read at the replies' tokens; or texts, which
            the model answers: the labels are then those of what the user said.
        out: Folder; stores and replies are kept there.
        sites: See `affectlens.core.places.expand_sites`; default: two thirds of the way up.
        offsets: Tokens of the reply, from 0; default: 0, 1, 2, 4, 8, …
        targets: As in a sweep; default: ``emotion``.
        group: What is never spread over fitting and held-out rows.
        answering: How replies are generated, where there are none.
        fitting: How probes are fitted and scored.
        device, dtype: As `affectlens.load_model`.
    """

    model: str
    corpus: CorpusChoice
    out: Path
    sites: str | None = None
    offsets: tuple[int, ...] = ()
    targets: tuple[str, ...] = ("emotion",)
    group: str = "scenario"
    answering: Answering = field(default_factory=Answering)
    fitting: Fitting = field(default_factory=Fitting)
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        for offset in self.offsets:
            if offset < 0:
                raise DataError(f"Offsets are tokens of the reply, from 0 on, not {offset}.")

    def sweep(self) -> SweepRequest:
        """The sweep that reads the same."""
        return SweepRequest(
            models=(self.model,),
            corpora=(self.corpus,),
            out=self.out,
            sites=self.sites or "resid_post",
            positions=POSITION,
            targets=self.targets,
            group=self.group,
            fitting=self.fitting,
            device=self.device,
            dtype=self.dtype,
        )


def persistence(
    request: PersistenceRequest, watch: Watch = lambda _name, _what: None
) -> StudyResult:
    """Read targets at tokens of replies, by offset, beside controls.

    Raises:
        AffectLensError: In one sentence, before weights are read where that can be known.
    """
    asked = request.sweep()
    (texts,) = load_texts(asked)
    reader = Reader(asked, request.model)
    watch(request.model, "loading")
    if request.sites is None:
        block = max(0, round(2 * reader.model.n_layers / 3) - 1)
        reader = Reader(replace(asked, sites=f"resid_post@{block}"), request.model)
    own = all(record.reply is not None for record in texts.corpus)
    if not own:
        watch(f"{request.model} · {texts.name}", "replying")
        kept = KeptRows(request.out)
        texts = replace(
            texts, corpus=answered(reader.model, texts.corpus, None, request.answering, kept)
        )
    watch(f"{request.model} · {texts.name}", "reading")
    tokens = ReplyTokens.of(reader.read(texts.bare, f"{texts.name}-replies"))
    offsets = tokens.chosen_offsets(request.offsets)
    rows: list[Row] = []
    for target in request.targets:
        watch(f"{texts.name} · {target}", "fitting")
        rows += _of_target(request, texts, tokens, target, reader.sites)
    return StudyResult(
        NAME,
        request.model,
        texts.name,
        rows,
        {
            "offsets": list(offsets),
            "replies": "of the corpus" if own else "generated",
            "texts": len(tokens.ids),
            "median reply": float(tokens.length.double().median()),
            "permutations": request.fitting.permutations,
        },
    )


def _of_target(
    request: PersistenceRequest,
    texts: Texts,
    tokens: ReplyTokens,
    name: str,
    sites: Sequence[Site],
) -> list[Row]:
    target = texts.target(name, tokens.ids)
    fitting = request.fitting
    numbers = not isinstance(target, Labels)
    groups = texts.groups(request.group, tokens.ids)
    of_texts = make_design(target, tokens.splits(), groups, fitting.folds, fitting.seed)
    found = tokens.expanded(of_texts, tokens.chosen_offsets(request.offsets))
    kind = PROBES["ridge" if numbers else "logistic"]
    tried = tuple(sorted(fitting.number_penalties if numbers else fitting.penalties))
    return Offsets(name, of_texts, found, kind, tried, fitting).rows(sites)


@dataclass(frozen=True, eq=False)
class Offsets:
    """One target at the tokens of replies.

    Attributes:
        name: Of the target.
        texts: The design of the texts.
        tokens: That of their tokens.
        kind: Of probe.
        penalties: Ascending.
        fitting: How probes are scored.
    """

    name: str
    texts: Design
    tokens: TokenDesign
    kind: ProbeKind
    penalties: tuple[float, ...]
    fitting: Fitting

    def rows(self, sites: Sequence[Site]) -> list[Row]:
        """Every series at every offset."""
        design = self.tokens.design
        x = self.tokens.read(sites)
        scored = cross_validate(x, design, self.penalties, self.kind)
        probes = self._held(design, scored.outputs)
        readable = [i for i, site in enumerate(sites) if site != EMBEDDINGS] or [0]
        best = max(readable, key=lambda i: float(scored.cv[i].max()))
        word = [i for i, site in enumerate(sites) if site == EMBEDDINGS and i != best]
        length = self._held(
            design,
            cross_validate(self.tokens.lengths(), design, self.penalties, self.kind).outputs,
        )
        found: list[Row] = []
        for i in readable:
            chosen = {"site": sites[i].hook_name, "chosen": i == best}
            found += [{**row, **chosen} for row in self._scored(probes, SHARED, i)]
        site = {"site": sites[best].hook_name, "chosen": True}
        found += [{**row, **site} for row in self._permuted(x[best][None])]
        beside = self._scored(length, LENGTH, 0, (probes, best))
        if word:
            beside += self._scored(probes, WORD, word[0], (probes, best))
        beside += self._own(x[best][None])
        return [*found, *({**row, **site} for row in beside)]

    def _held(self, design: Design, outputs: Float[Tensor, "site held output"]) -> HeldOut:
        ids = self.tokens.tokens.store.column("id", POSITION)
        return HeldOut.of(design, ids, outputs, self.kind.link)

    def _places(self, offset: int) -> np.ndarray[Any, Any]:
        """Which held-out rows are at an offset."""
        return np.flatnonzero((self.tokens.offset[self.tokens.design.held] == offset).numpy())

    def _scored(
        self,
        held: HeldOut,
        series: str,
        site: int,
        against: tuple[HeldOut, int] | None = None,
    ) -> list[Row]:
        """The first score at each offset; of a control also how much better the probe is."""
        found: list[Row] = []
        draws, seed = self.fitting.draws, self.fitting.seed
        for offset in self.tokens.offsets:
            places = self._places(offset)
            mine = some_rows(held, places)
            one = scores(mine, draws=draws, random=torch.Generator().manual_seed(seed)).rows(site)
            row = self._line(series, offset, one[0]["value"], low=one[0]["low"],
                             high=one[0]["high"])  # fmt: skip
            row |= {"rows": len(places), "groups": len(set(mine.groups))}
            row |= {"beside": self._constant(offset), "control": "always the same"}
            if against is not None:
                other = some_rows(against[0], places)
                more = other.compare(against[1], mine, site, draws=draws)
                row |= {"probe_minus": more.mean, "probe_minus_low": more.low}
                row |= {"probe_minus_high": more.high, "probe_minus_p": more.p}
            found.append(row)
        return found

    def _line(self, series: str, offset: int, value: float, **more: Any) -> Row:
        measure = "accuracy" if self.texts.classes else "pearson"
        return line(self.name, series, offset, measure, value, **more)

    def _constant(self, offset: int) -> float:
        """Accuracy of the class most frequent among the fitted rows; 0 of numbers."""
        return self.tokens.only(offset).design.majority() if self.texts.classes else 0.0

    def _own(self, x: Float[Tensor, "1 n d"]) -> list[Row]:
        """A probe for each offset; none where too few replies are so long to fit one."""
        found: list[Row] = []
        for offset in self.tokens.offsets:
            alone = self.tokens.only(offset)
            kept = self.tokens.offset == offset
            if not _can_be_fitted(alone.design):
                continue
            scored = cross_validate(x[:, kept], alone.design, self.penalties, self.kind)
            part = replace(self, tokens=alone)
            found += part._scored(part._held(alone.design, scored.outputs), OWN, 0)
        return found

    def _permuted(self, x: Float[Tensor, "1 n d"]) -> list[Row]:
        """The labels of whole texts in other orders, at one penalty, the middle one of those tried.

        Nothing was chosen by the labels as they are or by any other order, so p is exact; over the
        offsets, by the best of each order.
        """
        penalty = self.penalties[len(self.penalties) // 2]
        random = np.random.default_rng(self.fitting.seed)
        real = self._by_offset(x, self.tokens.design, penalty)
        null = np.stack(
            [
                self._by_offset(x, self.tokens.with_targets(permuted(self.texts, random)), penalty)
                for _ in range(self.fitting.permutations)
            ]
        )
        p, corrected = westfall_young(real, null)
        ends = np.quantile(null, (0.025, 0.975), axis=0)
        measure = "accuracy" if self.texts.classes else "less squared error"
        return [
            line(self.name, PERMUTED, offset, measure, null[:, i].mean(), low=ends[0, i],
                 high=ends[1, i], p=float(p[i]), p_over_offsets=float(corrected[i]),
                 beside=float(real[i]),
                 control="labels as they are", rows=len(self._places(offset)))
            for i, offset in enumerate(self.tokens.offsets)
        ]  # fmt: skip

    def _by_offset(self, x: Tensor, design: Design, penalty: float) -> np.ndarray[Any, Any]:
        """Goodness of held-out rows, mean at each offset."""
        if design.nested:
            good = out_of_fold(x, design, (penalty,), self.kind, tol=TOL)[0]
        else:
            fits = fit_probes(x, design, (penalty,), design.fit[None].float(), self.kind, tol=TOL)
            good = design.good(fits.logits(x))[0, 0, 0]
        held = design.held
        at = [held & (self.tokens.offset == offset) for offset in self.tokens.offsets]
        return np.array([float(good[rows].mean()) for rows in at])


def _can_be_fitted(design: Design) -> bool:
    """As `make_design` asks of whole corpora."""
    return design.spread and int(design.fit.sum()) > design.folds
