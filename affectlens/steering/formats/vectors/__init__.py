"""Vector files of other tools: one vector per block, added to its output."""

from affectlens.core.registry import Registry
from affectlens.steering.formats.vectors.easysteer import EASYSTEER
from affectlens.steering.formats.vectors.gguf import GGUF
from affectlens.steering.formats.vectors.hook_tensors import HOOK_TENSORS
from affectlens.steering.formats.vectors.lm_eval import LM_EVAL
from affectlens.steering.formats.vectors.persona import PERSONA
from affectlens.steering.formats.vectors.svec import SVEC, SVEC_CAA
from affectlens.steering.formats.vectors.vector_format import (
    BlockVectors,
    VectorFile,
    VectorFormat,
)

VECTOR_FORMATS: Registry[VectorFormat] = Registry(
    "vector format", GGUF, EASYSTEER, SVEC, SVEC_CAA, LM_EVAL, PERSONA, HOOK_TENSORS
)
"""Every format that ``affectlens export`` and ``affectlens import`` know."""

__all__ = ["VECTOR_FORMATS", "BlockVectors", "VectorFile", "VectorFormat"]
