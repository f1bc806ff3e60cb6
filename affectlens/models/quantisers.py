"""Ways to quantise a model while it is loaded, by name: ``--quantize NAME``.

Checkpoints that are quantised already (GPTQ, AWQ, FP8, MXFP4, compressed-tensors, …) need none of
them: transformers reads from the checkpoint how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from affectlens.core.errors import ModelError
from affectlens.core.registry import Registry


@dataclass(frozen=True)
class Quantiser:
    """A way to quantise.

    Attributes:
        name: What users write.
        help: One line for lists.
        package: What has to be installed for it.
        make: Builds the config of transformers.
    """

    name: str
    help: str
    package: str
    make: Callable[[], Any]

    def config(self) -> Any:
        """What ``from_pretrained`` of transformers is given as ``quantization_config``.

        Raises:
            ModelError: If the package is not installed.
        """
        if find_spec(self.package) is None:
            raise ModelError(
                f"Quantising with {self.name!r} needs {self.package}: pip install {self.package}."
            )
        return self.make()


def _bitsandbytes(**options: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**options)


def _bnb4() -> Any:
    return _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4")


def _int8() -> Any:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def _intx(bits: int) -> Any:
    import torch
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup
    from transformers import TorchAoConfig

    dtype = getattr(torch, f"int{bits}")
    return TorchAoConfig(IntxWeightOnlyConfig(weight_dtype=dtype, granularity=PerGroup(32)))


def _hqq(bits: int) -> Any:
    from transformers import HqqConfig

    return HqqConfig(nbits=bits, group_size=64)


QUANTISERS: Registry[Quantiser] = Registry(
    "quantiser",
    Quantiser("int8", "8-bit weights, one scale an output; any device", "torchao", _int8),
    Quantiser("int4", "4-bit weights in groups of 32; any device", "torchao", lambda: _intx(4)),
    Quantiser(
        "bnb8",
        "LLM.int8() of bitsandbytes",
        "bitsandbytes",
        lambda: _bitsandbytes(load_in_8bit=True),
    ),
    Quantiser("bnb4", "NF4 of bitsandbytes, the format of QLoRA", "bitsandbytes", _bnb4),
    Quantiser("hqq8", "8-bit half-quadratic, no calibration", "hqq", lambda: _hqq(8)),
    Quantiser("hqq4", "4-bit half-quadratic, no calibration", "hqq", lambda: _hqq(4)),
)
"""All of them, by name."""


def quantisation(given: Any) -> Any:
    """A config of transformers: one given as it is, or that of a name.

    Raises:
        UnknownNameError: If there is no quantiser of the name.
        ModelError: If what it needs is not installed.
    """
    return QUANTISERS[given].config() if isinstance(given, str) else given
