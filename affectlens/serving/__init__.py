"""Serving: steering requests as fixed tables, the plug-in of vLLM, starting and checking servers.

Names are looked up on first use: a server process loads none of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
