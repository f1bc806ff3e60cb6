"""Side effects of a pack: every suite before and after, resumable cell by cell, all texts kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import ArtefactError, DataError, fingerprint
from affectlens.core.artefact import write_json
from affectlens.core.jsonl import read_jsonl, write_jsonl
from affectlens.models.generation.decoding import GenerationSettings

if TYPE_CHECKING:
    from affectlens.evaluation.side_effects import Asked, Cell, SideEffect
    from affectlens.models import LanguageModel
    from affectlens.steering import SteeringPack

RESULT = "side_effects.json"
DOSES = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class SideEffectRequest:
    """What to measure.

    Attributes:
        pack_file: Of `SteeringPack.save`.
        out: Folder for replies and results.
        model: Default: the name of the model the pack was made for.
        suites: Names in `affectlens.evaluation.suites.SUITES`; none: all.
        emotions: Of the pack; none: all.
        doses: Strengths; 1 is what the pack recommends.
        items: At most so many of each suite; None takes all.
        mode: ``"circuit"`` or ``"residual"``; None: the pack's first.
        device, dtype: See `load_model`.
        generation: The same before and after.
    """

    pack_file: Path
    out: Path
    model: str | None = None
    suites: tuple[str, ...] = ()
    emotions: tuple[str, ...] = ()
    doses: tuple[float, ...] = DOSES
    items: int | None = None
    mode: str | None = None
    device: str | None = None
    dtype: str | None = None
    generation: GenerationSettings = field(default_factory=GenerationSettings)

    def __post_init__(self) -> None:
        if not self.doses or not all(0 < dose < float("inf") for dose in self.doses):
            raise DataError(f"Doses must be numbers above 0, not {list(self.doses)}.")
        if self.items is not None and self.items < 1:
            raise DataError(f"At least one item of each suite must be asked, not {self.items}.")


def measure_side_effects(
    request: SideEffectRequest, *, on_cell: Callable[[str, bool], object] = lambda _n, _k: None
) -> list[SideEffect]:
    """Ask every suite without steering and with each emotion at each dose.

    Replies are written cell by cell; a second call with the same pack, model, prompts and settings
    reads them instead of generating again.

    Args:
        request: See `SideEffectRequest`.
        on_cell: Told the name of a cell and whether its replies were kept from before.

    Raises:
        ArtefactError: If there is no pack, or it is damaged.
        MismatchError: If it is for another model.
        UnknownNameError: If there is no such suite, emotion or mode.
    """
    from affectlens.core import emotion_name
    from affectlens.evaluation.side_effects import UNSTEERED, Asked, side_effects
    from affectlens.evaluation.suites import SUITES
    from affectlens.models import load_model
    from affectlens.steering import SteeringPack
    from affectlens.steering.packs import existing

    asked = Asked([SUITES[name] for name in request.suites or SUITES], request.items)
    pack = SteeringPack.load(existing(request.pack_file))
    emotions = tuple(emotion_name(e, pack.emotions) for e in request.emotions) or pack.emotions
    cells = [UNSTEERED, *((e, dose) for e in emotions for dose in request.doses)]
    model = load_model(
        request.model or pack.provenance.model_name,
        device=request.device,
        dtype=request.dtype,
        template_variables=pack.template_variables,
    )
    pack.require_model(model)
    replies: dict[Cell, Sequence[str]] = {}
    for cell in cells:
        replies[cell], kept = _replies(request, asked, model, pack, cell)
        on_cell(_name(cell), kept)
    found = side_effects(asked, replies, seed=request.generation.seed)
    write_json(request.out / RESULT, {"rows": [asdict(row) for row in found]})
    return found


def _name(cell: Cell) -> str:
    emotion, dose = cell
    return f"{emotion}_{dose:g}" if emotion else "unsteered"


def _replies(
    request: SideEffectRequest, asked: Asked, model: LanguageModel, pack: SteeringPack, cell: Cell
) -> tuple[list[str], bool]:
    """The replies of one cell, and whether they were kept."""
    from affectlens.evaluation.backends import Transformers
    from affectlens.models.generation.generation import encode_prompt
    from affectlens.pipeline.fingerprints import generated_by
    from affectlens.steering import SteeringSpec

    emotion, dose = cell
    spec = None
    if emotion:
        spec = SteeringSpec({emotion: dose}, mode=request.mode, emotions=pack.emotions)
    file = request.out / "side_effects" / f"{_name(cell)}.jsonl"
    key = fingerprint(
        [(item.id, item.prompt, item.system) for item in asked.every],
        None if spec is None else [pack.fingerprint, str(spec)],
        generated_by(model),
        request.generation,
    )
    if (known := _kept(file, key, len(asked.every))) is not None:
        return known, True
    prompts = [encode_prompt(model, item.prompt, item.system or None) for item in asked.every]
    steering = None if spec is None else pack
    rows = Transformers(model).generate(
        prompts, [spec] * len(prompts), steering, request.generation, lambda _n: None
    )
    texts = [str(model.tokenizer.decode(list(r), skip_special_tokens=True)).strip() for r in rows]
    told = [
        {"id": item.id, "prompt": item.prompt, "system": item.system, "reply": text}
        for item, text in zip(asked.every, texts, strict=True)
    ]
    write_jsonl(file, ({"key": key}, *told))
    return texts, False


def _kept(file: Path, key: str, n: int) -> list[str] | None:
    """Replies of before, if they were made under the same key and are whole."""
    try:
        header, *rows = [dict(row) for row in read_jsonl(file)]
        whole = header.get("key") == key and len(rows) == n
        return [str(row["reply"]) for row in rows] if whole else None
    except (OSError, ArtefactError, DataError, ValueError, KeyError):
        return None


def side_effect_table(found: Sequence[SideEffect]) -> list[Mapping[str, Any]]:
    """A row per suite and dose: unsteered, and the share under each emotion."""
    rows: dict[tuple[str, float], dict[str, Any]] = {}
    for one in found:
        row = rows.setdefault(
            (one.suite, one.dose),
            {"suite": one.suite, "dose": one.dose, "unsteered": one.unsteered},
        )
        row[one.emotion] = one.share
    return list(rows.values())
