"""``python -m affectlens.serving.local``: what `affectlens serve` becomes without vLLM."""

from __future__ import annotations

import sys

from affectlens.core import AffectLensError
from affectlens.serving.local.running import main

if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except AffectLensError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(1)
