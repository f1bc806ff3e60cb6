"""Values of other runs in the place of a run's own, row by row and position by position.

What stands in for a value decides what is left of it. Its own in another text (*patching*, resample
ablation) keeps everything but what the two texts differ in; a mean over texts keeps what they have
in common at that position, or in that group.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.circuits.interventions.base import Change, Kind, given_values
from affectlens.core.errors import DataError
from affectlens.core.places import WritePoint
from affectlens.models.hooking.hooks import Writer, writing

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel


@torch.no_grad()
def donor_values(
    model: LanguageModel, points: Sequence[WritePoint], ids: Int[Tensor, "batch pos"]
) -> dict[WritePoint, Float[Tensor, "batch pos width"]]:
    """What another run has at some places, for `patch` and the means below.

    Args:
        model: The model; what changes it now counts.
        points: Where to look.
        ids: Texts of equal length.

    Returns:
        Copies in float32.

    Raises:
        DataError: If no place is named.
        UnknownNameError: If the model lacks one.
    """
    if not points:
        raise DataError("No place was named to take values from; name at least one.")
    found: dict[WritePoint, Tensor] = {}

    def keep(point: WritePoint) -> Writer:
        def look(value: Tensor) -> None:
            found[point] = value.detach().float().clone()

        return look

    with writing(model.anatomy, {point: keep(point) for point in points}):
        model.anatomy.base(input_ids=ids.to(model.device), use_cache=False)
    return found


def patch(donor: Float[Tensor, "#batch pos width"]) -> Change:
    """Activation patching: put the values of another run in their place, token for token.

    Args:
        donor: Of `donor_values`, one row or as many as the pass has.

    Raises:
        DataError: If they hold NaN; in a pass whose texts are of another length.
    """
    kept = _runs(donor, "a patch")

    def change(value: Tensor) -> Tensor:
        if value.shape[1] != kept.shape[1]:
            raise DataError(
                f"The run that values are patched from has {kept.shape[1]} tokens a text, this one "
                f"{value.shape[1]}; patching needs texts of equal length in tokens."
            )
        return kept.to(value.device).expand_as(value)

    return change


def mean_by_position(donors: Float[Tensor, "donor pos width"]) -> Change:
    """Put the mean over texts at each position in their place.

    Args:
        donors: Of `donor_values`; the texts must be laid out alike, as those of one template are.

    Raises:
        DataError: As `patch`.
    """
    return patch(_runs(donors, "a mean by position").mean(0, keepdim=True))


def group_mean(
    donors: Float[Tensor, "donor pos width"],
    groups: Sequence[Hashable],
    rows: Sequence[Hashable],
) -> Change:
    """Put the mean over the texts of each row's group in its place.

    Args:
        donors: Values of texts; one position, or as many as the pass has.
        groups: Of each donor.
        rows: The group of each row of the pass.

    Raises:
        DataError: If they hold NaN or a row's group has no donor; in a pass of other rows.
    """
    kept = _runs(donors, "a group mean")
    _labels(kept, groups)
    means = list[Tensor]()
    for row in rows:
        own = [i for i, group in enumerate(groups) if group == row]
        if not own:
            raise DataError(f"No text of the group {row!r} was given to take a mean of.")
        means.append(kept[own].mean(0))
    return _row_by_row(torch.stack(means))


def resample(
    donors: Float[Tensor, "donor pos width"],
    emotions: Sequence[Hashable],
    rows: Sequence[Hashable],
    *,
    seed: int = 0,
) -> Change:
    """Resample ablation: each row gets the values of one text of another emotion, drawn at random.

    Args:
        donors: Values of texts; one position, or as many as the pass has.
        emotions: Of each donor.
        rows: The emotion of each row of the pass.
        seed: Of the draw.

    Raises:
        DataError: If they hold NaN or all donors are of a row's emotion; in a pass of other rows.
    """
    kept = _runs(donors, "a resample")
    _labels(kept, emotions)
    generator = torch.Generator().manual_seed(seed)
    drawn = list[int]()
    for row in rows:
        others = [i for i, emotion in enumerate(emotions) if emotion != row]
        if not others:
            raise DataError(f"All texts to draw from are of {row!r}; give some of other emotions.")
        drawn.append(others[int(torch.randint(len(others), (), generator=generator))])
    return _row_by_row(kept[drawn])


def _runs(values: Tensor, name: str) -> Float[Tensor, "donor pos width"]:
    if values.ndim != 3 or not len(values):
        raise DataError(
            f"The values of {name} are runs [donor, pos, width], at least one, not "
            f"{list(values.shape)}; see donor_values."
        )
    return given_values(name, values)


def _labels(values: Tensor, labels: Sequence[Hashable]) -> None:
    if len(labels) != len(values):
        raise DataError(f"There are {len(values)} donors but {len(labels)} labels of donors.")


def _row_by_row(values: Float[Tensor, "row pos width"]) -> Change:
    def change(value: Tensor) -> Tensor:
        if len(value) != len(values):
            raise DataError(
                f"The intervention was made for {len(values)} rows, the pass has {len(value)}; "
                "name the group of each row."
            )
        if values.shape[1] not in (1, value.shape[1]):
            raise DataError(
                f"The donors have {values.shape[1]} tokens a text, the pass {value.shape[1]}; give "
                "texts of equal length in tokens, or their means as one position."
            )
        return values.to(value.device).expand_as(value)

    return change


PATCH = Kind("patch", "the values of another run in their place, token for token", patch)
MEAN_BY_POSITION = Kind(
    "mean_by_position", "the mean over texts at each position in their place", mean_by_position
)
GROUP_MEAN = Kind("group_mean", "the mean over texts of the row's group in their place", group_mean)
RESAMPLE = Kind("resample", "those of a random text of another emotion in their place", resample)
