"""Have vLLM's CPU build keep Triton's interpreter (``TRITON_INTERPRET=1``), in every process.

It drops Triton unless ``triton.backends.backends`` has an entry ``cpu``.
"""

import os

if os.environ.get("TRITON_INTERPRET") == "1":
    from triton.backends import backends

    class _Driver:
        @staticmethod
        def is_active() -> bool:
            return False

    class _Backend:
        driver = _Driver
        compiler = None

    backends.setdefault("cpu", _Backend)
