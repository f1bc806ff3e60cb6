"""What ``export``, ``import`` and ``packs`` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.cli.consoles import stdout

if TYPE_CHECKING:
    from affectlens.steering.exporting import Exported
    from affectlens.steering.importing import Imported
    from affectlens.steering.pack import SteeringPack
    from affectlens.steering.packs.card import PackCard


def print_exported(done: Exported) -> None:
    """The file, what each block is called in it, and what a user should know."""
    _lines(
        f"{done.file}: {done.request}",
        "block in affectlens → in the file: " + ", ".join(_named(done.blocks)),
        *([] if done.fit is None else [f"Instead of the circuit: {done.fit}."]),
        *done.notes,
    )


def print_imported(found: Imported, out: Path) -> None:
    """The pack, its blocks, and what a user should know."""
    pack = found.pack
    (blocks,) = pack.layers.values()
    _lines(
        f"{out}: {', '.join(pack.emotions)} for {pack.provenance.model_name}",
        f"added after the blocks {', '.join(map(str, blocks))} (counted from 0)",
        *found.notes,
    )


def _named(blocks: Mapping[int, str]) -> list[str]:
    """Each block and its name; of many, the first and the last, which say how they count."""
    pairs = [f"{block} → {name}" for block, name in blocks.items()]
    return pairs if len(pairs) <= 8 else [pairs[0], f"… ({len(pairs) - 2} between)", pairs[-1]]


def _lines(*lines: str) -> None:
    from rich.text import Text

    out = stdout()
    for line in lines:
        out.print(Text(line), soft_wrap=True)


def print_packs(where: str, packs: Sequence[tuple[str, PackCard]]) -> None:
    """Each by the name to type, which is never cut, and what it is."""
    if not packs:
        _lines(f"There are no packs with a card in {where}")
        return
    for name, card in packs:
        modes = ", ".join(card.doses)
        _lines(name, f"  {card.model}: {', '.join(card.labels)}; {modes}; {card.told.licence}")


def print_pack(pack: SteeringPack, card: PackCard | None) -> None:
    """What a pack says of itself, then its card."""
    made_by = pack.provenance
    _lines(
        f"model: {made_by.model_name} ({made_by.model}), {pack.n_layers} blocks of width "
        f"{pack.d_model}",
        f"fingerprint: {pack.fingerprint}",
    )
    for mode in pack.modes:
        doses = ", ".join(f"{e} {pack.recommended[mode][e]:g}" for e in pack.emotions)
        _lines(f"{mode}: positions {pack.positions[mode]}; strength 1 in natural doses: {doses}")
        for point in pack.points(mode):
            blocks = ", ".join(map(str, pack.layers[f"{mode}.{point}"]))
            _lines(f"  {point} of the blocks {blocks}")
    if card is None:
        _lines("It has no card; `affectlens packs push` writes one.")
        return
    told = card.told
    _lines(
        f"labels: {card.label_set or 'of its own'}; corpora: {', '.join(told.corpora) or '?'} "
        f"({card.corpus or '?'}); revision: {told.revision or '?'}; licence: {told.licence}",
        *(
            f"{arm}: " + ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
            for arm, scores in told.scores.items()
        ),
        *(
            f"strengths tried for {arm}: {low:g} to {high:g} natural doses"
            for arm, (low, high) in told.doses_tried.items()
        ),
        f"for: {told.use}",
        f"limits: {told.limits}",
    )
