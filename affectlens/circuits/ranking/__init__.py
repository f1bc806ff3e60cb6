"""Ways to choose a circuit's units, by name."""

from __future__ import annotations

from affectlens.circuits.ranking.base import Search, Strategy, find_by
from affectlens.circuits.ranking.by_attribution import (
    ATTRIBUTION_PATCHING,
    DIRECT,
    EAP_IG,
    LEARNED_MASK,
    TOTAL_EFFECT,
)
from affectlens.circuits.ranking.by_validation import CONSENSUS, GREEDY
from affectlens.circuits.ranking.published import PUBLISHED
from affectlens.circuits.ranking.reranked import reranked
from affectlens.core.registry import Registry

STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    PUBLISHED,
    DIRECT,
    ATTRIBUTION_PATCHING,
    EAP_IG,
    TOTAL_EFFECT,
    CONSENSUS,
    GREEDY,
    LEARNED_MASK,
)

__all__ = ["STRATEGIES", "Search", "Strategy", "find_by", "reranked"]
