"""How emotions lie to each other: components, trees, similarity of layers, ratings by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.plotting import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from affectlens.geometry import EmotionComponents, EmotionTree, Similarity
    from affectlens.probes import VadMap


def component_bars(found: EmotionComponents) -> go.Figure:
    """Variance along each component of the emotions' means, beside chance."""
    import plotly.graph_objects as go

    x = [f"{k + 1}" for k in range(len(found.explained))]
    share, chance, p = (
        np.asarray(v, dtype=float).tolist() for v in (found.explained, found.chance, found.p)
    )
    told = [
        ", ".join(f"{n.dimension} r {n.r:.2f}" for n in found.norms if n.component == k + 1)
        for k in range(len(x))
    ]
    figure = go.Figure()
    figure.add_bar(
        x=x,
        y=share,
        marker={"color": style.INK},
        name="emotions",
        customdata=list(zip(p, told, strict=True)),
        hovertemplate="component %{x}: %{y:.1%}, p %{customdata[0]:.2g}<br>%{customdata[1]}"
        "<extra></extra>",
    )
    figure.add_bar(
        x=x,
        y=chance,
        marker={"color": style.MUTED},
        name="labels permuted",
        hovertemplate="component %{x}, labels permuted: %{y:.1%}<extra></extra>",
    )
    figure.update_layout(barmode="group")
    figure.update_xaxes(**style.categories(title="component"))
    figure.update_yaxes(**style.axis("share of variance", tickformat=".0%"))
    return style.finish(figure, 360, legend=True)


def emotion_tree(found: EmotionTree) -> go.Figure:
    """Emotions joined pair by pair, the nearest first."""
    import plotly.graph_objects as go
    from scipy.cluster.hierarchy import dendrogram

    drawn: Any = dendrogram(found.joins, labels=list(found.emotions), no_plot=True)
    figure = go.Figure()
    for heights, places in zip(drawn["dcoord"], drawn["icoord"], strict=True):
        figure.add_scatter(
            x=list(map(float, heights)),
            y=list(map(float, places)),
            mode="lines",
            line={"color": style.INK, "width": 2},
            hovertemplate="distance %{x:.2f}<extra></extra>",
            showlegend=False,
        )
    leaves = [10.0 * i + 5 for i in range(len(drawn["ivl"]))]  # where scipy puts them
    figure.update_xaxes(**style.axis("distance (1 − cosine)"))
    figure.update_yaxes(tickmode="array", tickvals=leaves, ticktext=list(drawn["ivl"]))
    return style.finish(figure, 120 + 26 * len(leaves))


def similarity_heatmap(found: Similarity) -> go.Figure:
    """How alike the distances between emotions are, layer by layer."""
    import plotly.graph_objects as go

    x, y = ([str(site.layer) for site in sites] for sites in (found.second, found.first))
    figure = go.Figure(
        go.Heatmap(
            x=x,
            y=y,
            z=found.r.tolist(),
            zmin=-1,
            zmax=1,
            colorscale=style.DIVERGING,
            customdata=found.p.tolist(),
            hovertemplate="layers %{y} and %{x}: r %{z:.2f}, p %{customdata:.2g}<extra></extra>",
        )
    )
    first, second = found.names
    figure.update_xaxes(**style.categories(title=f"layer of {second}"))
    figure.update_yaxes(**style.categories(title=f"layer of {first}"))
    return style.finish(figure, 460)


def vad_curves(found: VadMap) -> go.Figure:
    """How well valence, arousal and dominance are read at each site, with 95 % intervals."""
    import plotly.graph_objects as go

    from affectlens.core.emotions import DIMENSIONS

    x = [site.layer for site in found.sites]
    figure = go.Figure()
    for d, (name, dash) in enumerate(zip(DIMENSIONS, ("solid", "dash", "dot"), strict=True)):
        low, high = (found.ci[:, d, end].tolist() for end in (0, 1))
        figure.add_scatter(
            x=[*x, *reversed(x)],
            y=[*high, *reversed(low)],
            fill="toself",
            fillcolor=style.fade(style.INK),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=x,
            y=found.pearson[:, d].tolist(),
            mode="lines+markers",
            line={"color": style.INK, "width": 2.5, "dash": dash},
            name=name,
            customdata=list(zip(low, high, strict=True)),
            hovertemplate=f"{name}, layer %{{x}}: r %{{y:.2f}}<br>95 % %{{customdata[0]:.2f}} to "
            "%{customdata[1]:.2f}<extra></extra>",
        )
    figure.update_xaxes(**style.axis("layer"))
    figure.update_yaxes(**style.axis("correlation with ratings"))
    return style.finish(figure, 380, legend=True)
