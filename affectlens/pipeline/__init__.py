"""A whole run: stages, their receipts, one folder."""

from affectlens.pipeline.run import run
from affectlens.pipeline.run_config import RunConfig

__all__ = ["RunConfig", "run"]
