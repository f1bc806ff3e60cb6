"""A model beside what was made of it: what a fine-tune or an adapter changed, layer by layer."""

from affectlens.comparison.compare import compare, compare_sources
from affectlens.comparison.comparison import Comparison
from affectlens.comparison.settings import ComparisonSettings

__all__ = ["Comparison", "ComparisonSettings", "compare", "compare_sources"]
