"""Refining vectors by gradient, so that steered text stays fluent."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
