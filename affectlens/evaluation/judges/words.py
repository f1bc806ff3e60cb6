"""A judge of counted words for any labels: as unlike an encoder as one that learns can be.

Words and pairs of words, weighted by how rare they are, and a linear classifier on them, both by
scikit-learn. It knows no word that its texts do not have and no order beyond pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from affectlens.core import ArtefactError, Provenance, fingerprint
from affectlens.core.artefact import read_tensors, write_tensors
from affectlens.evaluation.judges.base import Verdicts

if TYPE_CHECKING:
    from affectlens.evaluation.judges.training_data import Example

KIND = "word judge"


@dataclass(frozen=True, eq=False)
class WordsJudge:
    """Blind judge of words and pairs of words.

    Attributes:
        labels: Every label it may choose.
        words: The entries it counts.
        rarity: Weight of each.
        weight: Of each entry for each label.
        bias: Of each label.
        provenance: What it was fitted on.
    """

    labels: tuple[str, ...]
    words: tuple[str, ...]
    rarity: Float[np.ndarray, " word"]
    weight: Float[np.ndarray, "label word"]
    bias: Float[np.ndarray, " label"]
    provenance: Provenance = field(default_factory=lambda: Provenance(KIND))

    name = "words"

    @property
    def fingerprint(self) -> str:
        """Hash of all that a verdict depends on."""
        arrays = (self.rarity, self.weight, self.bias)
        return fingerprint(self.labels, self.words, [a.tolist() for a in arrays])

    @classmethod
    def fit(cls, texts: Sequence[Example], labels: Sequence[str]) -> WordsJudge:
        """Learn from labelled texts; each label needs one, and counts as much as any other."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        counter: Any = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        rows = counter.fit_transform([example.text for example in texts])
        told = [example.label for example in texts]
        model: Any = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000)
        model.fit(rows, told)
        weight, bias = model.coef_, model.intercept_
        if len(labels) == 2:  # scikit-learn keeps one row for two classes
            weight, bias = np.vstack([-weight, weight]) / 2, np.array([-bias[0], bias[0]]) / 2
        order = [list(model.classes_).index(label) for label in labels]
        return cls(
            labels=tuple(labels),
            words=tuple(counter.get_feature_names_out().tolist()),
            rarity=np.asarray(counter.idf_, dtype=np.float64),
            weight=np.asarray(weight[order], dtype=np.float64),
            bias=np.asarray(bias[order], dtype=np.float64),
            provenance=Provenance(KIND, corpus=fingerprint([[e.text, e.label] for e in texts])),
        )

    def __call__(self, texts: Sequence[str]) -> Verdicts:
        """Judge each text alone."""
        rows = self._counter.transform(list(texts))
        scores = np.asarray(rows @ self.weight.T) + self.bias
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        return Verdicts.likeliest(self.labels, probabilities)

    @cached_property
    def _counter(self) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vocabulary = {word: i for i, word in enumerate(self.words)}
        counter: Any = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, vocabulary=vocabulary)
        counter.idf_ = self.rarity
        return counter

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        tensors = {
            "rarity": torch.from_numpy(self.rarity),
            "weight": torch.from_numpy(self.weight),
            "bias": torch.from_numpy(self.bias),
        }
        facts = {"labels": self.labels, "words": self.words}
        write_tensors(path, tensors, self.provenance, facts)

    @classmethod
    def load(cls, path: Path) -> WordsJudge:
        """Inverse of `save`.

        Raises:
            ArtefactError: If the file is missing or damaged.
            MismatchError: If it is another kind of artefact.
        """
        file = read_tensors(path, kind=KIND)
        try:
            return cls(
                labels=tuple(file.extra["labels"]),
                words=tuple(file.extra["words"]),
                rarity=file.tensors["rarity"].numpy(),
                weight=file.tensors["weight"].numpy(),
                bias=file.tensors["bias"].numpy(),
                provenance=file.provenance,
            )
        except (KeyError, TypeError) as error:
            raise ArtefactError(f"{path} lacks {error}; fit the judge again.") from error
