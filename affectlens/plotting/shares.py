"""A heat map of shares, which several figures are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from affectlens.plotting import style

if TYPE_CHECKING:
    import plotly.graph_objects as go


def shares_heatmap(
    rows: Sequence[str], columns: Sequence[str], z: Any, hover: str, height: int, **more: Any
) -> go.Figure:
    """Cells in [0, 1], each with its share written in it.

    Args:
        rows: Labels from the top.
        columns: Labels from the left.
        z: Shares, ``[row, column]``; NaN leaves a gap.
        hover: Template of what a cell says.
        height: In pixels.
        **more: Of the trace.
    """
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Heatmap(
            x=list(columns),
            y=list(rows),
            z=z,
            zmin=0,
            zmax=1,
            colorscale=style.SEQUENTIAL,
            texttemplate="%{z:.0%}",
            textfont={"size": 12},
            hovertemplate=hover,
            hoverongaps=False,
            xgap=2,
            ygap=2,
            showscale=False,
            **more,
        )
    )
    figure.update_xaxes(**style.categories(autotickangles=style.UPRIGHT))
    figure.update_yaxes(**style.categories(autorange="reversed"))
    return style.finish(figure, height)
