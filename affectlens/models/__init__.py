"""Language models: fetching, loading, and what is where inside them.

Names are looked up on first use, so that listing models does not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
