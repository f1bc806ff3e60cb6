"""The same probe on the same model before training: the same shape, its weights drawn anew."""

from __future__ import annotations

from affectlens.core.statistics import holm
from affectlens.probes.sweeping import sweep
from affectlens.sweeps.controls.base import Control, Row, Setting


def untrained_model(setting: Setting) -> list[Row]:
    """Sweep an untrained model, and compare every site in pairs, Holm over the sites."""
    from affectlens.circuits.evidence.untrained import untrained

    reader, cell = setting.reader, setting.cell
    model = untrained(reader.model, setting.fitting.seed)
    store = reader.read(setting.texts.bare, f"{setting.texts.name}-untrained", model)
    found = sweep(
        store,
        target=setting.target,
        position=setting.position,
        sites=setting.sites,
        group=setting.groups,
        **setting.options,
    )
    pairs = [
        setting.held.compare(i, found.held, i, draws=setting.fitting.draws)
        for i in range(len(setting.sites))
    ]
    corrected = holm([pair.p for pair in pairs])
    scores = found.scores
    rows: list[Row] = []
    for i, (site, pair, p) in enumerate(zip(setting.sites, pairs, corrected, strict=True)):
        low, high = scores.interval(cell.measure)[i]
        name = site.hook_name
        rows.append(
            setting.row("untrained", cell.measure, scores[cell.measure][i], site=name,
                        low=float(low), high=float(high))
        )  # fmt: skip
        measure = "probe minus it, squared error less" if setting.numbers else "probe minus it"
        rows.append(
            setting.row("untrained", measure, pair.mean, site=name, low=pair.low, high=pair.high,
                        p=float(p), note="Holm over sites")
        )  # fmt: skip
    return rows


UNTRAINED = Control(
    "untrained",
    "the same probe on the same model before training",
    "Any network of this shape would do: it is the probe and the words.",
    untrained_model,
    numbers=True,
)
