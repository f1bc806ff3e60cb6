"""Fitting a judge on a plain encoder, and what the shipped one learns from."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from affectlens.core import Provenance, fingerprint
from affectlens.core.progress import progress
from affectlens.evaluation.judges.adapter import KIND, JudgeAdapter, insert_low_rank
from affectlens.evaluation.judges.encoder import load_encoder
from affectlens.evaluation.judges.encoder_identity import encoder_fingerprint
from affectlens.evaluation.judges.training_data import FitSettings, TrainingSet, training_set
from affectlens.evaluation.judges.training_epochs import batches, epoch_examples
from affectlens.evaluation.judges.windows import encode, pooled_log_probabilities, windows_of

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
