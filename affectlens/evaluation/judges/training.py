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
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from affectlens.core import TONES, Provenance, fingerprint
from affectlens.core.progress import progress
from affectlens.evaluation.judges.adapter import KIND, JudgeAdapter, insert_low_rank
from affectlens.evaluation.judges.corruptions import TRAINED
from affectlens.evaluation.judges.encoder import ENCODER, EncoderJudge, load_encoder
from affectlens.evaluation.judges.encoder_identity import encoder_fingerprint
from affectlens.evaluation.judges.leave_one_out import leave_one_source_out
from affectlens.evaluation.judges.lexicon import LexiconJudge
from affectlens.evaluation.judges.report import (
    judge_report,
    long_text_report,
    refusal_report,
)
from affectlens.evaluation.judges.training_data import FitSettings, TrainingSet, training_set
from affectlens.evaluation.judges.training_epochs import batches, epoch_examples
from affectlens.evaluation.judges.windows import encode, pooled_log_probabilities, windows_of

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus, Record

AUTHORED = ("replies", "implicit", "tones")
"""Authored corpora of which the groups for judges are learned from."""

_LOG = logging.getLogger(__name__)


def fit_judge(
    encoder_folder: Path, data: TrainingSet, settings: FitSettings | None = None
) -> JudgeAdapter:
    """Fit the adapter and the head.

    Args:
        encoder_folder: The plain encoder.
        data: See `training_set`.
        settings: See `FitSettings`.
    """
    settings = settings or FitSettings()
    torch.manual_seed(settings.seed)
    encoder, tokenizer = load_encoder(encoder_folder)
    bound_to = encoder_fingerprint(encoder, tokenizer)
    encoder.requires_grad_(False)
    inserted = insert_low_rank(encoder, settings.rank)
    factors = [p for p in encoder.parameters() if p.requires_grad]
    head = nn.Linear(int(encoder.config.hidden_size), len(data.labels))
    pieces = vocabulary(tokenizer)
    epochs = [
        list(
            batches(
                epoch_examples(data, settings, epoch, pieces),
                settings.batch_size,
                f"{settings.seed}/{epoch}",
            )
        )
        for epoch in range(settings.epochs)
    ]
    total = sum(map(len, epochs))
    optimiser = torch.optim.AdamW(
        [
            {"params": factors, "lr": settings.learning_rate},
            {"params": head.parameters(), "lr": settings.head_learning_rate},
        ],
        weight_decay=0.01,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / (0.06 * total)) * max(0.0, 1 - step / total)
    )
    encoder.train()
    running = 0.0
    with progress("Fitting the judge", total) as advance:
        for step, batch in enumerate(b for batches_ in epochs for b in batches_):
            windows = windows_of(tokenizer, [e.text for e in batch], settings.reading.window)
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
                pooled = encode(encoder, tokenizer, windows.ids)
            logits = head(nn.functional.dropout(pooled, 0.1))
            said = pooled_log_probabilities(logits, windows, data.labels, settings.reading)
            targets = torch.tensor([data.labels.index(example.label) for example in batch])
            # A cross-entropy leaves log-probabilities as they are.
            loss = nn.functional.cross_entropy(
                said, targets, label_smoothing=settings.label_smoothing
            )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(factors, 1.0)
            optimiser.step()
            schedule.step()
            running = 0.98 * running + 0.02 * loss.item()
            if step % 100 == 99:
                _LOG.info("step %d of %d, loss %.3f", step + 1, total, running)
            advance(1)
    return JudgeAdapter(
        deltas={name: module.delta() for name, module in inserted.items()},
        head_weight=head.weight.detach().clone(),
        head_bias=head.bias.detach().clone(),
        labels=data.labels,
        reading=settings.reading,
        provenance=Provenance(
            kind=KIND,
            model=bound_to,
            model_name="all-MiniLM-L6-v2",
            corpus=_data_fingerprint(data),
            parameters=asdict(settings),
        ),
    )


def shipped_training_set(comments: Path, scenarios: Path) -> TrainingSet:
    """What the shipped judge learns from.

    Args:
        comments: Folder of GoEmotions.
        scenarios: Folder of RepE's scenarios.

    Raises:
        DataError: If a file is missing, or not what it should be.
    """
    from affectlens import datasets

    return training_set(
        [datasets.load(name) for name in AUTHORED],
        datasets.load("goemotions", path=comments, mapping="original"),
        datasets.load("repe", path=scenarios),
    )


def vocabulary(tokenizer: Any) -> list[str]:
    """Pieces of a tokenizer in the order of their ids, without the special ones."""
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [piece for piece, _ in pieces if not piece.startswith("[")]


def _data_fingerprint(data: TrainingSet) -> str:
    return fingerprint(
        [asdict(e) for e in data.authored],
        {label: list(texts) for label, texts in data.comments.items()},
        [asdict(e) for e in data.model_texts],
        {label: list(texts) for label, texts in data.scenarios.items()},
    )


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
