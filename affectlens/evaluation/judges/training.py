"""How the shipped adapter was made, and how to make another.

``python -m affectlens.evaluation.judges.training GOEMOTIONS_FOLDER adapter.safetensors``
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from affectlens.core import Provenance, fingerprint
from affectlens.core.progress import progress
from affectlens.evaluation.judges.adapter import KIND, JudgeAdapter, insert_low_rank
from affectlens.evaluation.judges.base import GARBLED, JUDGED
from affectlens.evaluation.judges.binding import encoder_fingerprint
from affectlens.evaluation.judges.encoder import ENCODER, EncoderJudge, encode, load_encoder
from affectlens.evaluation.judges.report import judge_report, refusal_report
from affectlens.evaluation.judges.training_data import (
    FitSettings,
    TrainingSet,
    batches,
    epoch_examples,
    training_set,
)

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus

_LOG = logging.getLogger(__name__)


def judge_loss(logits: Tensor, labels: Sequence[str | None], smoothing: float) -> Tensor:
    """Mean cross-entropy; for texts without a label, minus the log-probability of "not garbled".

    Args:
        logits: ``[b, k]``, columns as `JUDGED`.
        labels: One per row.
        smoothing: Label smoothing of the labelled rows.
    """
    known = torch.tensor([label is not None for label in labels])
    targets = torch.tensor([JUDGED.index(label) for label in labels if label is not None])
    loss = logits.new_zeros(())
    if bool(known.any()):
        loss = nn.functional.cross_entropy(
            logits[known], targets, label_smoothing=smoothing, reduction="sum"
        )
    if not bool(known.all()):
        rest = logits[~known]
        good = [index for index, label in enumerate(JUDGED) if label != GARBLED]
        loss = loss - (rest[:, good].logsumexp(1) - rest.logsumexp(1)).sum()
    return loss / len(labels)


def fit_judge(
    encoder_folder: Path, data: TrainingSet, settings: FitSettings | None = None
) -> JudgeAdapter:
    """Fit the adapter and the head.

    Takes about ten minutes on one core. Matrix products run in bfloat16, the rest in fp32.

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
    head = nn.Linear(int(encoder.config.hidden_size), len(JUDGED))
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
            with torch.autocast("cpu", dtype=torch.bfloat16):
                pooled = encode(encoder, tokenizer, [e.text for e in batch], settings.max_tokens)
            logits = head(nn.functional.dropout(pooled.float(), 0.1))
            loss = judge_loss(logits, [e.label for e in batch], settings.label_smoothing)
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
        labels=JUDGED,
        max_tokens=settings.max_tokens,
        provenance=Provenance(
            kind=KIND,
            model=bound_to,
            model_name="all-MiniLM-L6-v2",
            corpus=_data_fingerprint(data),
            parameters=asdict(settings),
        ),
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
    )


def measured(judge: EncoderJudge, unseen: Mapping[str, Corpus]) -> dict[str, Any]:
    """What goes into the adapter's header: accuracy on unseen groups, and refusals."""
    texts = [record.text for corpus in unseen.values() for record in corpus]
    refusals = refusal_report(judge, texts, n=1000, seed=1, pieces=vocabulary(judge.tokenizer))
    return judge_report(judge, unseen) | {"refusals": refusals}


def main(arguments: Sequence[str]) -> None:
    """Fit with the default settings, measure on unseen groups, and write the adapter."""
    from affectlens import datasets
    from affectlens.models.registry import pull

    goemotions_folder, target = map(Path, arguments)
    replies, tones = datasets.load("replies"), datasets.load("tones")
    comments = datasets.load("goemotions", path=goemotions_folder, mapping="original")
    folder = pull(ENCODER)
    adapter = fit_judge(folder, training_set(replies, tones, comments))
    adapter.save(target)
    judge = EncoderJudge.load(target, folder)  # with the factors rounded as they are shipped
    facts = measured(judge, {c.name: c.filter(role="test") for c in (replies, tones)})
    replace(adapter, facts=facts).save(target)
    _LOG.info("unseen groups: %s", facts)


if __name__ == "__main__":
    import sys

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(sys.argv[1:])
