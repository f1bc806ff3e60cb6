"""``python -m affectlens.serving.local``: what `affectlens serve` becomes without vLLM."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    try:
        from affectlens.core import AffectLensError
        from affectlens.serving.local.running import main

        try:
            main(sys.argv[1:])
        except AffectLensError as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            sys.exit(1)
    except KeyboardInterrupt:  # the usual way to end a server
        sys.stderr.write("Stopped.\n")
        sys.stderr.flush()
        os._exit(130)  # a model that is still being loaded is not waited for
