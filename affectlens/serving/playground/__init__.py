"""The playground: a page (and a notebook widget) that steers, and looks at what steering did."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
