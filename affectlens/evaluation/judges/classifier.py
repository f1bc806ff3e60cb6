"""A text classifier of somebody else's as a blind judge: a folder that transformers can load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from affectlens.core import DataError, ModelError, UnknownNameError, emotion_name, fingerprint
from affectlens.core.artefact import file_fingerprint, read_json
from affectlens.evaluation.judges.base import Verdicts
from affectlens.models.batches import BatchLimits, cut, shortest_first
from affectlens.models.library_bars import no_library_bars

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_ROWS = 32


@dataclass(frozen=True, eq=False)
class ClassifierJudge:
    """Blind judge by a sequence classifier; outputs besides the labels of the run can be chosen.

    Attributes:
        classifier: In evaluation mode.
        tokenizer: Of it.
        labels: Those of the run, then the others of the classifier.
        order: Output of each label.
        fingerprint: Hash of the files.
    """

    classifier: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    order: tuple[int, ...]
    fingerprint: str

    name = "classifier"

    @classmethod
    def load(cls, folder: Path, labels: Sequence[str]) -> ClassifierJudge:
        """Read a folder.

        Raises:
            DataError: If the classifier lacks a label.
            ModelError: If the folder holds no sequence classifier.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        outputs = classifier_labels(folder, labels)
        try:
            with no_library_bars():
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                classifier = AutoModelForSequenceClassification.from_pretrained(
                    folder, local_files_only=True, dtype=torch.float32
                )
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder} holds no text classifier ({error}).") from error
        return cls(
            classifier.eval(),
            tokenizer,
            tuple(outputs),
            tuple(outputs.values()),
            fingerprint(folder_marks(folder), list(labels)),
        )

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Verdicts:
        """Judge each text alone; what is longer than the classifier can read is cut off."""
        longest = int(getattr(self.classifier.config, "max_position_embeddings", 512))
        tokenizer: Any = self.tokenizer
        most = min(int(tokenizer.model_max_length), longest)
        ids = [tokenizer(text, truncation=True, max_length=most)["input_ids"] for text in texts]
        probabilities = np.zeros((len(texts), len(self.labels)))
        lengths = [len(row) for row in ids]
        for rows in cut(shortest_first(lengths), lengths, BatchLimits(rows=_ROWS)):
            batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
            logits = self.classifier(**batch).logits.double()
            probabilities[rows] = logits.softmax(-1)[:, list(self.order)].numpy()
        return Verdicts.likeliest(self.labels, probabilities)


def folder_marks(folder: Path) -> Mapping[str, str]:
    """Hash of each file of a classifier, by its name."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    return {file.name: file_fingerprint(file) for file in files}


def classifier_labels(folder: Path, labels: Sequence[str]) -> Mapping[str, int]:
    """Which output of a classifier is which label; its others follow under their own names.

    Only the config is read.

    Raises:
        DataError: If a label has no output, or two.
    """
    named: Mapping[str, str] = read_json(folder / "config.json").get("id2label") or {}
    found, rest = dict[str, int](), dict[str, int]()
    for number, name in named.items():
        try:
            label = emotion_name(name, tuple(labels))
        except UnknownNameError:
            rest[name] = int(number)
            continue
        if label in found:
            raise DataError(
                f"The classifier {folder} has two outputs that mean {label}: "
                f"{named[str(found[label])]} and {name}; rename one of them in its config.json."
            )
        found[label] = int(number)
    lacking = [label for label in labels if label not in found]
    if lacking:
        raise DataError(
            f"The classifier {folder} has no output for {', '.join(lacking)}; it has "
            f"{', '.join(named.values()) or 'none with a name'}."
        )
    return {**{label: found[label] for label in labels}, **rest}
