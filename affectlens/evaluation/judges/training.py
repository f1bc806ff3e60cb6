"""How the shipped adapter was made, and how to make another.

``python -m affectlens.evaluation.judges.training --goemotions FOLDER --repe FOLDER --out FILE``

The first folder holds GoEmotions as its authors publish it (``train.tsv``, ``dev.tsv``,
``test.tsv``), the second the scenarios of RepE (``anger.json`` …); the file is the adapter. With
``--leave-one-out`` a judge is fitted without each source as well, which takes four times as long.
Equal seeds on one kind of machine give equal adapters.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import TONES
from affectlens.evaluation.judges.corruptions import TRAINED
from affectlens.evaluation.judges.encoder import ENCODER, EncoderJudge
from affectlens.evaluation.judges.fitting import (
    AUTHORED,
    fit_judge,
    shipped_training_set,
    vocabulary,
)
from affectlens.evaluation.judges.leave_one_out import leave_one_source_out
from affectlens.evaluation.judges.lexicon import LexiconJudge
from affectlens.evaluation.judges.report import (
    judge_report,
    long_text_report,
    refusal_report,
)
from affectlens.evaluation.judges.training_data import FitSettings, TrainingSet

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus, Record

_LOG = logging.getLogger(__name__)


def measured(
    judge: EncoderJudge, unseen: Mapping[str, Corpus], comments: Corpus, data: TrainingSet
) -> dict[str, Any]:
    """What goes into the adapter's header: what it learned from, and what it does on unseen texts.

    Args:
        judge: The fitted judge, read back from its file.
        unseen: Test groups of the authored corpora.
        comments: GoEmotions in the authors' mapping to our tones; its test split is read.
        data: What the judge was fitted on, to be counted.
    """
    texts = [record.text for corpus in unseen.values() for record in corpus]
    pieces = vocabulary(judge.tokenizer)
    across = {"goemotions": _sample(comments.filter(split="test"), per_tone=100)}
    lexicon = LexiconJudge()
    return judge_report(judge, unseen) | {
        "refusals": refusal_report(judge, texts, n=900, seed=1, pieces=pieces),
        "across": judge_report(judge, across)["corpora"],
        "long": {name: long_text_report(judge, corpus) for name, corpus in unseen.items()},
        "lexicon": {
            name: {key: found[key] for key in ("n", "accuracy", "chance")}
            for name, found in judge_report(lexicon, {**unseen, **across})["corpora"].items()
        },
        "learned_from": {
            "authored": Counter(example.label for example in data.authored),
            "comments": {label: len(texts) for label, texts in data.comments.items()},
            "model_texts": Counter(example.label for example in data.model_texts),
            "scenarios": {label: len(texts) for label, texts in data.scenarios.items()},
            "corruptions": list(TRAINED),
        },
    }


def _sample(corpus: Corpus, per_tone: int) -> Corpus:
    """The first so many records of each tone."""
    kept: Counter[str | None] = Counter()
    records: list[Record] = []
    for record in corpus:
        if record.emotion in TONES and kept[record.emotion] < per_tone:
            kept[record.emotion] += 1
            records.append(record)
    return replace(corpus, records=tuple(records))


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit with the default settings, measure on unseen groups, and write the adapter."""
    from affectlens import datasets
    from affectlens.models.registry import pull

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--goemotions", type=Path, required=True, help="folder of the TSV files")
    parser.add_argument("--repe", type=Path, required=True, help="folder of the JSON files")
    parser.add_argument("--leave-one-out", action="store_true", help="measure that, too")
    parser.add_argument("--out", type=Path, required=True, help="the adapter's file")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    given = parser.parse_args(arguments)
    data = shipped_training_set(given.goemotions, given.repe)
    folder, settings = pull(ENCODER), FitSettings(seed=given.seed)
    adapter = fit_judge(folder, data, settings)
    adapter.save(given.out)
    judge = EncoderJudge.load(given.out, folder)  # with the factors rounded as they are shipped
    unseen = {n: datasets.load(n).filter(role="test") for n in (*AUTHORED, "vignettes")}
    facts = measured(judge, unseen, datasets.load("goemotions", path=given.goemotions), data)
    if given.leave_one_out:
        held_out = leave_one_source_out(folder, data)
        facts["leave_one_out"] = [found.to_dict() for found in held_out]
    replace(adapter, facts=facts).save(given.out)
    _LOG.info("unseen groups: %s", facts)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
