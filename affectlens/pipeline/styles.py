"""How steered replies are to show a feeling, by what their vectors are refined on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from affectlens.core.errors import DataError
from affectlens.core.registry import Registry
from affectlens.core.sentences import sentences
from affectlens.pipeline.rules import IMPLICIT, OWN

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus, Record
    from affectlens.pipeline.rules import RefineMix
    from affectlens.pipeline.settings import Settings
    from affectlens.steering.refine.settings import RefineSettings

LEAST_WORDS = 5
"""A reply of which less is left shows nothing."""


@dataclass(frozen=True)
class Style:
    """A row of `STYLES`.

    Attributes:
        name: What users write.
        help: One line.
        pools: What becomes of the corpora that vectors are refined on in turn.
        descent: What becomes of the settings of the descent.
        adds: Authored pools besides; a run on a user's own texts has none.
    """

    name: str
    help: str
    pools: Callable[[Sequence[Corpus]], Sequence[Corpus]]
    descent: Callable[[RefineSettings], RefineSettings]
    adds: tuple[str, ...] = ()


def without_naming(records: Iterable[Record]) -> list[Record]:
    """Replies without sentences that name a feeling.

    A sentence goes if it holds an entry of the feeling lexicon, which is what replies are judged
    without. Replies of which fewer than `LEAST_WORDS` words are left go as a whole.
    """
    return [left for left in map(_expressing, records) if left is not None]


def implicit_texts(pools: Sequence[Corpus]) -> list[Corpus]:
    """The texts of people without naming, as one corpus: each of its groups counts alike.

    What a model goes on with after an opener is left out. Without the opener little of it shows
    anything: it was the opener that was emotional.

    Raises:
        DataError: If every text names its feeling.
    """
    from affectlens.datasets.schema import Corpus

    texts = {pool.name: pool for pool in pools if pool.name != OWN}
    left = without_naming(record for pool in texts.values() for record in pool)
    if not left:
        raise DataError(
            "Every reply names its feeling, so that none is left for the style implicit; use "
            "--style explicit, or texts that show a feeling without naming it."
        )
    return [Corpus("implicit", "replies", tuple(left))]


def _expressing(record: Record) -> Record | None:
    from affectlens.datasets.schema import Message
    from affectlens.evaluation.naming import mask_feelings

    said = sentences(record.reply or "")
    left = " ".join(one for one in said if mask_feelings(one) == one)
    if len(left.split()) < LEAST_WORDS:
        return None
    return replace(record, messages=(*record.messages[:-1], Message("assistant", left)))


def styled(settings: Settings, name: str) -> Settings:
    """The settings of a run in a style: circuit, residual directions and controls alike.

    Raises:
        UnknownNameError: If there is no such style.
    """
    style = STYLES[name]
    d, c, r = settings.directions, settings.circuit, settings.controls
    adds = style.adds if "replies" in d.mix.pools else ()

    def mix(plain: RefineMix) -> RefineMix:
        return replace(plain, style=name, pools=(*plain.pools, *adds))

    return replace(
        settings,
        directions=replace(d, mix=mix(d.mix), refine=style.descent(d.refine)),
        circuit=replace(c, mix=mix(c.mix), refine=style.descent(c.refine)),
        controls=replace(r, mix=mix(r.mix), refine=style.descent(r.refine)),
    )


STYLES: Registry[Style] = Registry(
    "style",
    Style(
        "explicit",
        "the feeling may be named: replies as they are, what opens them weighs most",
        list,
        lambda refine: refine,
    ),
    Style(
        "implicit",
        "shown, not named: people's replies without sentences that name it, all tokens alike",
        implicit_texts,
        lambda refine: replace(refine, first_weight=0.0),
        adds=(IMPLICIT,),
    ),
)
"""Every style, the default first."""
