"""Steering: what a user asks (spec), what travels (pack), what is done (operators, positions).

Names are looked up on first use: reading a spec does not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
