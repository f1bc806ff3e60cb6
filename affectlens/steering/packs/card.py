"""The card beside a pack: what it is, what it was found to do, and the checksum of its file.

``pack.safetensors`` has its card in ``pack.card.json``. Whoever loads a pack that has a card holds
the two against each other; a pack without one is loaded all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import ArtefactError, MismatchError
from affectlens.core.artefact import file_fingerprint, package_version, read_json, write_json

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack

CARD_VERSION = 1
ENDING = ".card.json"

USE = "Research on emotion in language models: steering and reading the model it was made for."
LIMITS = (
    "Made for one set of weights. A steered model that names an emotion has not been shown to have "
    "it; steering costs fluency and can weaken safety training. Not for deceiving or manipulating "
    "people."
)


@dataclass(frozen=True)
class Told:
    """What a pack itself does not know.

    Attributes:
        licence: Under which the vectors may be used, by SPDX name.
        use: What they are meant for.
        limits: What they are not good for.
        revision: Of the model, as its hub names it.
        corpora: Texts they were made from.
        scores: Arm of the evaluation to measure to value.
        doses_tried: Arm to the lowest and highest strength that was tried, in natural doses.
    """

    licence: str = "not stated"
    use: str = USE
    limits: str = LIMITS
    revision: str = ""
    corpora: tuple[str, ...] = ()
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    doses_tried: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class PackCard:
    """What stands beside a pack.

    Attributes:
        bytes, sha256: Of the pack's file.
        fingerprint: Of the pack's contents, `SteeringPack.fingerprint`.
        model, model_fingerprint: What it steers: the name it was loaded by, and its weights.
        n_layers, d_model: Of that model.
        labels: What can be steered, in order.
        label_set: Name of the label set with these labels, if there is one.
        doses: Mode to label to the strength that is recommended, in natural doses.
        positions: Mode to the tokens that these strengths were chosen for.
        corpus: Fingerprint of the texts it was made from.
        told: What the pack does not know itself.
        package_version: That wrote the card.
        card_version: Of this layout.
    """

    bytes: int
    sha256: str
    fingerprint: str
    model: str
    model_fingerprint: str
    n_layers: int
    d_model: int
    labels: tuple[str, ...]
    label_set: str
    doses: Mapping[str, Mapping[str, float]]
    positions: Mapping[str, str]
    corpus: str
    told: Told
    package_version: str
    card_version: int = CARD_VERSION

    @classmethod
    def of(cls, pack: SteeringPack, file: Path, told: Told | None = None) -> PackCard:
        """The card of a pack in a file."""
        return cls(
            bytes=file.stat().st_size,
            sha256=file_fingerprint(file),
            **_facts(pack),
            told=told or Told(),
            package_version=package_version(),
        )

    @classmethod
    def read(cls, path: Path) -> PackCard:
        """Read a card.

        Raises:
            ArtefactError: If it is missing, damaged, or of a newer version.
        """
        raw: Any = read_json(path)
        try:
            if int(raw["card_version"]) > CARD_VERSION:
                raise ArtefactError(
                    f"{path} has card version {raw['card_version']}, newer than the "
                    f"{CARD_VERSION} this version reads; upgrade affectlens."
                )
            told: dict[str, Any] = {
                name: raw["told"][name] for name in (f.name for f in fields(Told))
            }
            told["corpora"] = tuple(told["corpora"])
            tried = {arm: (float(a), float(b)) for arm, (a, b) in told["doses_tried"].items()}
            known: dict[str, Any] = {f.name: raw[f.name] for f in fields(cls)}
            known["labels"] = tuple(known["labels"])
            told["doses_tried"] = tried
            known["told"] = Told(**told)
            return cls(**known)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtefactError(f"{path} is no pack card, or damaged ({error}).") from error

    def write(self, path: Path) -> None:
        """Write it, atomically."""
        write_json(path, asdict(self))

    def require(self, file: Path) -> None:
        """Refuse a file other than the one that the card is of.

        Raises:
            MismatchError: If its bytes are not those.
        """
        if file.stat().st_size != self.bytes or file_fingerprint(file) != self.sha256:
            raise MismatchError(
                f"{file} is not the pack that {card_file(file)} is of (SHA-256 {self.sha256[:16]}…"
                "); fetch both again, or delete the card if the pack was changed on purpose."
            )

    def require_facts(self, pack: SteeringPack, file: Path) -> None:
        """Refuse a card that says other things than its pack.

        Raises:
            MismatchError: Naming the first of them.
        """
        for name, value in _facts(pack).items():
            if getattr(self, name) != value:
                raise MismatchError(
                    f"{card_file(file)} does not match its pack: {name} is "
                    f"{getattr(self, name)!r} there and {value!r} in {file.name}; do not use them."
                )


def card_file(pack_file: Path) -> Path:
    """Where the card of a pack is."""
    return pack_file.with_name(pack_file.stem + ENDING)


def check_card(pack_file: Path) -> PackCard | None:
    """Hold a pack's file against the card beside it; None if there is none.

    Raises:
        ArtefactError: If the card is damaged.
        MismatchError: If it is of another file.
    """
    path = card_file(pack_file)
    if not path.is_file():
        return None
    card = PackCard.read(path)
    card.require(pack_file)
    return card


def _facts(pack: SteeringPack) -> dict[str, Any]:
    from affectlens.core.emotions import LABEL_SETS

    known = [name for name, one in LABEL_SETS.items() if set(one.labels) == set(pack.emotions)]
    return {
        "fingerprint": pack.fingerprint,
        "model": pack.provenance.model_name,
        "model_fingerprint": pack.provenance.model,
        "n_layers": pack.n_layers,
        "d_model": pack.d_model,
        "labels": tuple(pack.emotions),
        "label_set": next(iter(known), ""),
        "doses": {mode: dict(pack.recommended[mode]) for mode in pack.modes},
        "positions": {mode: pack.positions[mode] for mode in pack.modes},
        "corpus": pack.provenance.corpus,
    }
