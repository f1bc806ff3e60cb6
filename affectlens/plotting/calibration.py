"""How far probabilities can be believed: what was claimed against what came true."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.core.errors import DataError
from affectlens.plotting import style
from affectlens.probes import Probe
from affectlens.probes.calibration import Quality

if TYPE_CHECKING:
    import plotly.graph_objects as go


def reliability(found: Probe | Quality) -> go.Figure:
    """Share that came true by probability claimed, with its interval over groups; before and after.

    Args:
        found: A probe with its calibration, or the quality of some probabilities.

    Raises:
        DataError: If the probe's probabilities were never judged.
    """
    import plotly.graph_objects as go

    if isinstance(found, Quality):
        curves = {"probabilities": found}
    else:
        both = {"as claimed": found.before, found.calibration.kind: found.after}
        curves = {name: one for name, one in both.items() if one is not None}
    if not curves:
        raise DataError("This probe's probabilities were never judged; fit it with al.fit_probe.")
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": style.MUTED, "width": 1.5, "dash": "dash"},
        name="as claimed, so found",
        showlegend=False,
        hoverinfo="skip",
    )
    last = len(curves) - 1
    for i, (name, one) in enumerate(curves.items()):
        colour = style.INK if i == last else style.MUTED
        figure.add_scatter(
            x=list(one.claimed),
            y=list(one.found),
            customdata=list(one.count),
            mode="lines+markers",
            line={"color": colour, "width": 2.5 if i == last else 1.5},
            marker={"color": colour, "size": 6, "symbol": style.SYMBOLS[i]},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [h - f for h, f in zip(one.high, one.found, strict=True)],
                "arrayminus": [f - low for low, f in zip(one.low, one.found, strict=True)],
                "color": style.fade(colour, style.BAR),
                "thickness": 1.5,
                "width": 0,
            },
            name=f"{name}: ECE {one.ece:.3f} ({one.ece_low:.3f}–{one.ece_high:.3f})",
            hovertemplate="claimed %{x:.1%}, found %{y:.1%} of %{customdata}<extra></extra>",
        )
    figure.update_xaxes(**style.axis("claimed", tickformat=".0%", range=[0, 1.02]))
    figure.update_yaxes(**style.axis("came true", tickformat=".0%", range=[0, 1.02]))
    return style.finish(figure, 360, legend=True)
