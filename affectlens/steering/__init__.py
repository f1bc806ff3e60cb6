"""Steering: what a user asks (spec), what travels (pack), what is done (operators, positions)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
