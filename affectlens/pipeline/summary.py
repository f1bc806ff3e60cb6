"""Tables of a finished run as rows of text, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from affectlens.plotting.arms import arm_title

Rows = list[tuple[str, ...]]
NONE = "–"

_SHARES = {
    "accuracy": "emotion found",
    "masked_accuracy": "feeling words masked",
    "later_accuracy": "without first sentence",
    "copied_openers": "copied openers",
}
_MEANS = {
    "lexicon_accuracy": "by the lexicon judge",
    "perplexity_ratio": "perplexity ratio",
    "topic": "topic",
    "harmonic": "harmonic",
    "masked_harmonic": "harmonic, masked",
}
_PAIRED = {
    "accuracy": "emotion found",
    "masked_accuracy": "feeling words masked",
    "harmonic": "harmonic",
}


def share_table(metrics: Mapping[str, Any]) -> Rows:
    """Shares of replies by arm, with 95 % intervals: a head and one row each."""
    rows: Rows = [("arm", *_SHARES.values())]
    for name, arm in metrics["arms"].items():
        rows.append((arm_title(name), *(_interval(arm[key], arm[f"{key}_ci"]) for key in _SHARES)))
    return rows


def mean_table(metrics: Mapping[str, Any]) -> Rows:
    """The other columns by arm."""
    rows: Rows = [("arm", *_MEANS.values())]
    for name, arm in metrics["arms"].items():
        rows.append((arm_title(name), *(_number(arm[key]) for key in _MEANS)))
    return rows


def arm_table(metrics: Mapping[str, Any]) -> Rows:
    """Both in one, too wide for a terminal."""
    pairs = zip(share_table(metrics), mean_table(metrics), strict=True)
    return [(*shares, *means[1:]) for shares, means in pairs]


def pair_table(metrics: Mapping[str, Any]) -> Rows:
    """The comparisons of ``metrics.json``, a head and one row for each pair of arms."""
    found = {(c["arm"], c["control"], c["measure"]): c for c in metrics["comparisons"]}
    rows: Rows = [("difference", *_PAIRED.values())]
    for arm, control in dict.fromkeys(key[:2] for key in found):
        cells = (_difference(found[arm, control, measure]) for measure in _PAIRED)
        rows.append((f"{arm_title(arm)} − {arm_title(control)}", *cells))
    return rows


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A head and rows as a Markdown table."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _interval(value: float | None, ends: Sequence[float | None]) -> str:
    if None in ends:
        return _number(value)
    return f"{_number(value)} ({_number(ends[0])}–{_number(ends[1])})"


def _difference(pair: Mapping[str, Any]) -> str:
    low, high = pair["ci"]
    if low is None or high is None or pair["p"] is None:
        return f"{pair['difference']:+.2f}"
    return f"{pair['difference']:+.2f} ({low:+.2f} to {high:+.2f}), p {_p(float(pair['p']))}"


def _p(p: float) -> str:
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0")
