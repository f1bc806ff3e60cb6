"""How far judges can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.plotting import style
from affectlens.plotting.shares import shares_heatmap

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray


def pooled_confusion(judged: Mapping[str, Any]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Confusions over all corpora of a judge's report.

    Args:
        judged: Of `affectlens.evaluation.judges.judge_report`.

    Returns:
        The judge's labels, and counts ``[true, judged]``; the rows of labels that no text truly
        has (nothing is truly garbled) are 0.
    """
    corpora = list(judged["corpora"].values())
    labels = tuple(corpora[0]["labels"])
    counts = np.sum([np.asarray(c["confusion"], dtype=float) for c in corpora], axis=0)
    square = np.zeros((len(labels), len(labels)))
    square[: len(counts)] = counts
    return labels, square


def confusion(judged: Mapping[str, Any]) -> go.Figure:
    """How a judge reads texts whose tone is known, each row summing to 1.

    Args:
        judged: Of `affectlens.evaluation.judges.judge_report`; its corpora are pooled.
    """
    labels, counts = pooled_confusion(judged)
    totals = counts.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(totals > 0, counts / totals, np.nan)
    figure = shares_heatmap(
        labels,
        labels,
        shares.tolist(),
        "written as %{y}, judged %{x}: %{z:.1%} (%{customdata:.4g})<extra></extra>",
        430,
        customdata=counts.tolist(),
    )
    figure.update_xaxes(title=style.axis("judged as")["title"])
    figure.update_yaxes(title=style.axis("written as")["title"])
    return figure
