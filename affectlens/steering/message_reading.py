"""What a user's message is read as by the probe that a pack reads by."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from affectlens.core import DataError
from affectlens.core.emotions import NEUTRAL
from affectlens.core.places import Site

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel
    from affectlens.probes.probe import Probe
    from affectlens.steering.gates import Readout
    from affectlens.steering.pack import SteeringPack

logger = logging.getLogger(__name__)

ONE_REPLY = "mean:reply"
_SPOKEN_TO = "Tell me about it."


def probe_of(pack: SteeringPack) -> Probe:
    """The probe that a pack reads by, the last one if there are several, for `affectlens.read`.

    Raises:
        DataError: If the pack has none.
    """
    from affectlens.probes.calibration import Uncalibrated
    from affectlens.probes.estimators import PROBES
    from affectlens.probes.probe import Probe

    readout = _readout(pack)
    parts = {"weights": readout.weights[-1], "bias": readout.bias[-1]}
    kind = next(iter(PROBES))
    return Probe(
        kind=kind,
        site=Site(readout.layers[-1], "resid_post"),
        position=ONE_REPLY,
        classes=readout.classes,
        exclusive=True,
        fitted=PROBES[kind].restore({name: t[None, None, None] for name, t in parts.items()}),
        calibration=Uncalibrated(),  # what there was of it is folded in
        conformal=None,
        before=None,
        after=None,
        facts={},
        provenance=pack.provenance,
    )


def require_readable(pack: SteeringPack) -> None:
    """Refuse a pack whose probe tells none of its emotions; warn once of those it does not tell.

    Raises:
        DataError: If there is no probe, or it knows none of the emotions.
    """
    classes = _readout(pack).classes
    unread = tuple(e for e in pack.emotions if e not in (*classes, NEUTRAL))
    if not set(pack.emotions) & set(classes) - {NEUTRAL}:
        raise DataError(
            f"The probe of this pack tells {', '.join(classes)}, the pack steers "
            f"{', '.join(pack.emotions)}: nothing it steers can be read in a message; give it "
            "probes of its own emotions with pack.with_readout(sweep)."
        )
    if unread:
        _warn_of_unread(unread, classes)


@cache
def _warn_of_unread(unread: tuple[str, ...], classes: tuple[str, ...]) -> None:
    logger.warning(
        "The probe of this pack tells %s; %s cannot be read in a message, and counts as 0.",
        ", ".join(classes),
        ", ".join(unread),
    )


def _readout(pack: SteeringPack) -> Readout:
    if pack.readout is None:
        raise DataError(
            "This pack holds no probes to read messages with; make it with "
            "pack.with_readout(sweep)."
        )
    return pack.readout


def read_messages(
    model: LanguageModel, pack: SteeringPack, texts: Sequence[str], *, force: bool = False
) -> list[dict[str, float]]:
    """Probabilities of a pack's emotions in messages, and of none of them as ``"neutral"``.

    They add up to 1. An emotion that the pack itself calls neutral keeps what was read of it, to
    which that of none is added.

    Probes are fitted on the model's replies, so each message is read where a reply stands: on
    authored messages that is right more often than as a plain text or at the user's turn.

    Args:
        model: The pack's.
        pack: With probes.
        texts: The messages.
        force: Take a pack of another model of the same shape.

    Raises:
        DataError: If the pack has no probes or none of its emotions, or a message is empty or too
            long.
        MismatchError: If the pack is for another model.
    """
    from affectlens.datasets.schema import Corpus, Message, Record
    from affectlens.probes.reading import read

    pack.require_model(model, force=force)
    require_readable(pack)
    probe = probe_of(pack)
    for text in texts:
        if not text.strip():
            raise DataError("A message is empty; there is nothing to read in it.")
    records = tuple(
        Record(
            str(i),
            (Message("user", _SPOKEN_TO), Message("assistant", text.strip())),
            None,
            None,
            str(i),
            "",
            "test",
        )
        for i, text in enumerate(texts)
    )
    found = read(model, probe, Corpus("messages", "replies", records), force=force)
    read_as: list[dict[str, float]] = []
    for one in found.texts:
        shares = dict(zip(found.classes, one.of_text.tolist(), strict=True))
        felt = {e: shares.get(e, 0.0) for e in pack.emotions}
        none = max(0.0, 1.0 - sum(felt.values()))
        read_as.append({**felt, NEUTRAL: felt.get(NEUTRAL, 0.0) + none})
    return read_as
