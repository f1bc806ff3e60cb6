"""Files of sparse autoencoders and transcoders, whose features can be steered."""

from affectlens.core.registry import Registry
from affectlens.steering.formats.dictionaries.dictionary import DictionaryFormat, Feature
from affectlens.steering.formats.dictionaries.gemma_scope import GEMMA_SCOPE
from affectlens.steering.formats.dictionaries.saelens import SAELENS

DICTIONARIES: Registry[DictionaryFormat] = Registry("dictionary format", SAELENS, GEMMA_SCOPE)
"""Every format that ``affectlens import`` takes features from."""

__all__ = ["DICTIONARIES", "DictionaryFormat", "Feature"]
