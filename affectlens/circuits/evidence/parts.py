"""All tests of a circuit, part by part, and the verdict; what is done is not done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from affectlens.circuits.evidence.core import CoreCost
from affectlens.circuits.evidence.curve import AblationCurve, EnhancementCurve
from affectlens.circuits.evidence.faithfulness_curve import FaithfulnessCurve
from affectlens.circuits.evidence.identity import Confusion
from affectlens.circuits.evidence.minimality import Minimality
from affectlens.circuits.evidence.smallest import smallest
from affectlens.circuits.evidence.stability import Stability
from affectlens.circuits.evidence.study import Study
from affectlens.circuits.verdict import Evidence, Finding, Smallest
from affectlens.core.artefact import Provenance, fingerprint, read_json, write_json
from affectlens.core.errors import ArtefactError
from affectlens.core.parquet import write_parquet
from affectlens.core.registry import Registry

VERDICT = "evidence.json"
DONE = "done.json"

Curve = AblationCurve | EnhancementCurve | FaithfulnessCurve
Result = Curve | Confusion | Stability | CoreCost | Minimality


@dataclass(frozen=True)
class Part:
    """A row of `PARTS`.

    Attributes:
        name: Also of its file.
        help: One line.
        kind: What it makes.
        run: Makes it.
        says: Whether its findings are part of the verdict.
        require: Refuses a study that lacks what it needs.
    """

    name: str
    help: str
    kind: type[Result]
    run: Callable[[Study], Result]
    says: bool = False
    require: Callable[[Study], None] = lambda _study: None

    @property
    def file(self) -> str:
        """Where it lies in the folder."""
        return f"{self.name}.safetensors"

    @property
    def table(self) -> str:
        """Where its rows lie beside it."""
        return f"{self.name}.parquet"


PARTS: Registry[Part] = Registry(
    "part of the evidence",
    Part(
        "ablation",
        "how far margins fall without the highest units, by their means: necessary, specific",
        AblationCurve,
        lambda study: study.ablated(kind="neurons", by="mean"),
        says=True,
    ),
    Part(
        "faithfulness",
        "how much the circuit keeps alone, with CPR beside CMD: sufficient",
        FaithfulnessCurve,
        lambda study: study.left_alone(),
        says=True,
    ),
    Part(
        "stability",
        "whether other texts give the same units: stable",
        Stability,
        lambda study: study.chosen_anew,
        says=True,
        require=lambda study: study.require_again(),
    ),
    Part(
        "core",
        "what the units that nine of ten samples of the texts agree on keep alone: their cost",
        CoreCost,
        lambda study: study.core_alone(),
        require=lambda study: study.require_again(),
    ),
    Part(
        "identity",
        "which tone is gone on with once an emotion's units are set in texts of another",
        Confusion,
        lambda study: study.chosen(),
    ),
    Part(
        "enhancement",
        "how far margins rise towards an emotion once its units are set in texts of another",
        EnhancementCurve,
        lambda study: study.enhanced(),
    ),
    Part(
        "minimality",
        "whether each unit does more than one that does not belong",
        Minimality,
        lambda study: study.given_back(),
    ),
    Part(
        "resampling",
        "the ablation with values at tokens of other tones",
        AblationCurve,
        lambda study: study.ablated(kind="neurons", by="resample"),
    ),
    Part(
        "heads",
        "the ablation of heads",
        AblationCurve,
        lambda study: study.heads(by="mean"),
    ),
    Part(
        "untrained",
        "the ablation in the same model before training",
        AblationCurve,
        lambda study: study.without_training(),
        require=lambda study: study.require_untrained(),
    ),
)
"""All parts; those that decide the verdict first."""

RANKED_ANEW = frozenset({"stability", "core"})
"""Parts for which units are chosen anew, as the circuit's were."""


def gather(
    study: Study,
    folder: Path,
    parts: Sequence[str],
    on_part: Callable[[str, str], None] = lambda _name, _what: None,
    *,
    anew: bool = False,
) -> Evidence:
    """Run the parts that are missing, and put together the verdict.

    Args:
        study: What the circuit is tested with.
        folder: Where the parts are kept; a part that is there, of the same study, is read.
        parts: Names in :data:`PARTS`.
        on_part: Told of each part ``"started"``, ``"done"`` or ``"kept"``.
        anew: Measure again what is there.

    Returns:
        Also written to ``evidence.json`` in the folder.

    Raises:
        UnknownNameError: If there is no such part.
        DataError, MismatchError: See the parts.
    """
    rows = [PARTS[name] for name in dict.fromkeys(parts)]
    for row in rows:  # before hours of another part
        row.require(study)
    done = _done(folder)
    findings: dict[str, dict[str, Finding]] = {e: {} for e in study.circuit.emotions}
    inputs, enough = dict[str, str](), dict[str, Smallest]()
    for row in rows:
        key = fingerprint(row.name, study.key)
        made = _kept(row, folder) if done.get(row.name) == key and not anew else None
        if made is None:
            on_part(row.name, "started")
            made = row.run(study)
            made.save(folder / row.file)
            write_parquet(folder / row.table, made.table_rows())
            done = {**_done(folder), row.name: key}
            write_json(folder / DONE, done)
            on_part(row.name, "done")
        else:
            on_part(row.name, "kept")
        inputs[row.name] = made.provenance.fingerprint
        if isinstance(made, FaithfulnessCurve):
            enough = smallest(made, study.circuit.sizes)
        if row.says and isinstance(made, AblationCurve | FaithfulnessCurve | Stability):
            for emotion, words in made.findings().items():
                for word, found in words.items():
                    findings[emotion].setdefault(word, replace(found, file=row.file))
    evidence = Evidence(
        study.circuit.units_fingerprint,
        findings,
        Provenance(
            "evidence",
            model=study.model.fingerprint,
            model_name=study.model.name,
            corpus=study.task.fingerprint,
            parameters={"task": study.task.name, **asdict(study.settings)},
            inputs=inputs,
        ),
        enough,
    )
    evidence.save(folder / VERDICT)
    return evidence


def load_parts(folder: Path, evidence: Evidence) -> dict[str, Result]:
    """The parts that a verdict rests on, by name; what else lies in its folder is of other studies.

    Raises:
        ArtefactError: If one is missing, damaged, or another than the verdict names.
    """
    parts = dict[str, Result]()
    for name, made in evidence.provenance.inputs.items():
        row = PARTS[name]
        parts[name] = row.kind.load(folder / row.file)
        if parts[name].provenance.fingerprint != made:
            raise ArtefactError(
                f"{folder / row.file} is not what {VERDICT} beside it was made of; gather the "
                "evidence again."
            )
    return parts


def _kept(row: Part, folder: Path) -> Result | None:
    try:
        return row.kind.load(folder / row.file)
    except ArtefactError:  # cut short: made anew
        return None


def _done(folder: Path) -> Mapping[str, str]:
    try:
        return dict(read_json(folder / DONE))
    except (ArtefactError, TypeError, ValueError):
        return {}
