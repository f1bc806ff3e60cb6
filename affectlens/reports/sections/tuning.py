"""How hard to push: strength against accuracy and fluency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens import plotting as figures
from affectlens.plotting.arms import arm_title
from affectlens.reports.markup import card, number, plot, text

if TYPE_CHECKING:
    from affectlens.reports.data import ReportData


def tuning(data: ReportData) -> str:
    """Strength against accuracy and fluency, one card per arm that has strengths of its own."""
    if data.tuning is None or not data.tuning.points:
        return ""
    names = list(dict.fromkeys(point.arm for point in data.tuning.points))
    cards: list[str] = []
    for index, name in enumerate(names):
        chosen = data.tuning.chosen.get(name, {})
        figure = figures.strength_curves([p for p in data.tuning.points if p.arm == name], chosen)
        title = text(arm_title(name))
        picked = ", ".join(f"{text(e or 'all')} {number(s)}" for e, s in chosen.items())
        cards.append(
            card(
                f"Strength: {title}",
                plot(
                    figure,
                    f"plot-strength-{index}",
                    f"Line charts: accuracy and perplexity ratio over strength, {title}",
                ),
                finding=f"Chosen: {picked}." if picked else "",
            )
        )
    note = (
        '<p class="muted">More strength is heard more often, until the text falls apart. The '
        "ringed strength was chosen on these tuning scenarios alone; the results below come from "
        "test scenarios that played no part in it. Perplexity is measured by the unsteered model: "
        "a ratio of 2 means the text surprises it twice as much as its own.</p>"
    )
    body = "".join(cards)
    return note + (f'<div class="pair">{body}</div>' if len(cards) > 1 else body)
