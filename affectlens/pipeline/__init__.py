"""A whole run: stages, their receipts, one folder."""

from affectlens.pipeline.config import RunConfig
from affectlens.pipeline.run import run

__all__ = ["RunConfig", "run"]
