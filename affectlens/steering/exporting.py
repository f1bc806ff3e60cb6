"""A request to a pack as a file for other tools: what they can hold of it, the rest refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import DataError
from affectlens.steering.building import Layers, layer_numbers
from affectlens.steering.classifier import GRADIENT
from affectlens.steering.doses import doses_at
from affectlens.steering.formats.vectors import VECTOR_FORMATS, BlockVectors, VectorFormat
from affectlens.steering.formats.vectors.vector_format import any_block
from affectlens.steering.low_rank import LOW_RANK
from affectlens.steering.residual_equivalent import Fit, residual_equivalent
from affectlens.steering.spec import SteeringSpec

if TYPE_CHECKING:
    from torch import Tensor

    from affectlens.models.loading import LanguageModel
    from affectlens.steering.pack import SteeringPack

STREAM = ("resid_post",)
"""Where a mode must write for its vectors to be those of other tools."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        file: The file.
        request: What its vectors do, as a canonical spec.
        blocks: Block to what it is called in the file.
        notes: What a user should know of it, a sentence each.
        fit: How near the vectors come, where they stand for a circuit.
    """

    file: Path
    request: str
    blocks: Mapping[int, str]
    notes: tuple[str, ...]
    fit: Fit | None = None


def export_vectors(
    pack: SteeringPack,
    spec: Any,
    path: str | Path,
    format: str,
    *,
    layers: Layers | None = None,
    model: LanguageModel | None = None,
    block_list: str = "layers",
) -> Exported:
    """Write a request, strength included, as a file that another tool adds.

    Args:
        pack: Its vectors.
        spec: Anything `SteeringSpec.parse` reads; mixtures add up.
        path: Target file, with the format's ending.
        format: One of `VECTOR_FORMATS`.
        layers: Blocks to keep, as for `SteeringPack.from_directions`; default: all that it steers.
        model: The pack's model, for a circuit, which is put down as what it does to the residual
            stream (`affectlens.steering.residual_equivalent`).
        block_list: Name of the list of blocks within the model without its head, for ``lm-eval``.

    Raises:
        UnknownNameError: If the format, a layer, the mode or an emotion does not exist.
        DataError: If the format cannot hold what is asked; nothing is written then.
        MismatchError: If the model is not the pack's.
        ArtefactError: If the file cannot be written.
    """
    row, path = VECTOR_FORMATS[format], Path(path)
    if path.suffix != row.ending:
        raise DataError(f"Files of {format} end in {row.ending}; call it {path.stem}{row.ending}.")
    content, fit = block_vectors(pack, spec, layers=layers, model=model, format=row)
    row.write(replace(content, block_list=block_list), path)
    blocks = {block: row.label(block) for block in content.vectors}
    return Exported(path, content.request, blocks, _notes(pack, spec, row, len(blocks)), fit)


def block_vectors(
    pack: SteeringPack,
    spec: Any,
    *,
    layers: Layers | None = None,
    model: LanguageModel | None = None,
    format: VectorFormat | None = None,
) -> tuple[BlockVectors, Fit | None]:
    """A request as one vector per block, for a format; of a circuit with how near that comes.

    Raises:
        UnknownNameError, DataError, MismatchError: As `export_vectors`.
    """
    asked = _holdable(pack, spec)
    resolved = pack.resolve(asked)
    if resolved.mode in (LOW_RANK, GRADIENT):
        raise DataError(
            f"No vector file holds what the mode {resolved.mode} does, which depends on the hidden "
            "state; choose another mode, or use the pack itself."
        )
    chosen = None if layers is None else layer_numbers(layers, pack.n_layers)
    check, fit = format.check if format else any_block, None
    if pack.points(str(resolved.mode)) == STREAM:
        vectors = _stream_vectors(pack, resolved, chosen)
        check(vectors, pack.n_layers)
    elif model is None:
        raise DataError(
            "A circuit writes inside blocks, where no vector file can; name the model, and it is "
            "written as what it does after each block, with the error measured."
        )
    else:
        pack.require_model(model)
        blocks = _circuit_blocks(pack, resolved) if chosen is None else chosen
        check(blocks, pack.n_layers)  # before minutes are spent
        vectors, fit = residual_equivalent(model, pack, resolved, blocks)
    if not vectors:
        raise DataError(
            f"The request {asked} adds nothing after "
            f"{'any block' if chosen is None else f'the blocks {_listed(chosen)}'}; `affectlens "
            "packs info` says where the pack steers."
        )
    content = BlockVectors(
        vectors,
        pack.n_layers,
        pack.d_model,
        str(resolved),
        pack.provenance.model_name,
        pack.provenance.model,
    )
    return content, fit


def _holdable(pack: SteeringPack, spec: Any) -> SteeringSpec:
    asked = SteeringSpec.parse(spec, pack.emotions)
    if not asked:
        raise DataError("The request changes nothing; name an emotion, for example anger=1.")
    if asked.gate is not None:
        raise DataError(
            f"No vector file holds a gate ({asked.gate}); leave it out, or use the pack itself."
        )
    if asked.schedule is not None:
        raise DataError(
            f"No vector file holds a schedule ({asked.schedule}); leave it out, or use the pack "
            "itself."
        )
    if asked.operator != "add":
        raise DataError(
            f"Vector files are added, so none holds operator={asked.operator}; leave it out, or "
            "use the pack itself."
        )
    if asked.positions not in (None, "all"):
        raise DataError(
            f"No vector file holds positions={asked.positions}; leave it out: which tokens are "
            "steered is up to the tool that reads the file."
        )
    return asked


def _stream_vectors(
    pack: SteeringPack, resolved: SteeringSpec, chosen: Sequence[int] | None
) -> dict[int, Tensor]:
    (point,) = STREAM
    found: dict[int, Tensor] = {}
    for i, block in enumerate(pack.layers[f"{resolved.mode}.{point}"]):
        if chosen is None or block in chosen:
            vector = doses_at(pack, resolved, point, i).sum(0)
            if bool(vector.any()):
                found[block] = vector
    return found


def _circuit_blocks(pack: SteeringPack, resolved: SteeringSpec) -> list[int]:
    """Blocks in which the request writes."""
    mode = str(resolved.mode)
    return sorted(
        {
            block
            for point in pack.points(mode)
            for i, block in enumerate(pack.layers[f"{mode}.{point}"])
            if bool(doses_at(pack, resolved, point, i).any())
        }
    )


def _notes(pack: SteeringPack, spec: Any, row: VectorFormat, blocks: int) -> tuple[str, ...]:
    notes: list[str] = []
    asked = SteeringSpec.parse(spec, pack.emotions)
    positions = pack.positions[asked.mode or pack.modes[0]]
    if asked.positions is None and positions != "all":
        notes.append(f"The strengths were chosen for the positions {positions}; {row.tokens}.")
    if row.one_at_a_time and blocks > 1:
        notes.append(f"Its reader adds the vector of one block alone, the file holds {blocks}.")
    return tuple(notes)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
