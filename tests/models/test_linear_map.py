"""The matrix of a module, against the matrix that it was made from."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from affectlens.core.errors import ModelError
from affectlens.models.linear_map import (
    is_its_weight,
    is_quantised,
    linear_map,
    linear_offset,
    pushed_identity,
    shape_in_out,
)
from tests.conftest import tiny_hf

D_IN, D_OUT = 48, 20


def plain(bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(D_IN, D_OUT, bias=bias).to(dtype)


def brute_force(module: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Row by row through the module as everybody calls it, less what zeros give."""
    zeros = torch.zeros(1, D_IN, dtype=dtype)
    with torch.no_grad():
        rows = [module(row[None].to(dtype)) - module(zeros) for row in torch.eye(D_IN)]
    return torch.cat(rows).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_plain_linear_is_its_weight_pushed_or_read(bias: bool, dtype: torch.dtype) -> None:
    module = plain(bias, dtype)
    assert is_its_weight(module)
    assert not is_quantised(module)
    for chunk in (7, 2048):  # also where the last chunk is short
        assert torch.equal(pushed_identity(module, chunk=chunk), module.weight.float().T)
    assert torch.equal(linear_map(module), module.weight.float().T)
    some = [3, 0, 3]
    for found in (linear_map(module, only=some), pushed_identity(module, only=some)):
        assert torch.equal(found, module.weight.float()[some].T)
    offset = linear_offset(module)
    assert (offset is None) is not bias
    assert offset is None or torch.equal(offset, module.bias.float())


def test_gpt2s_transposed_linear() -> None:
    module = tiny_hf("gpt2").transformer.h[0].mlp.c_proj
    assert is_its_weight(module)
    assert shape_in_out(module) == tuple(module.weight.shape)
    assert torch.equal(linear_map(module), module.weight)
    torch.testing.assert_close(pushed_identity(module), module.weight.detach())

    class Conv1D(nn.Linear):  # of that name, but not transposed
        pass

    fake = Conv1D(D_IN, D_OUT)
    assert not is_its_weight(fake)
    assert torch.equal(linear_map(fake), fake.weight.T)


def test_what_a_module_computes_counts_not_what_it_keeps() -> None:
    module = plain()
    nn.utils.parametrize.register_parametrization(module, "weight", nn.Identity())
    assert torch.equal(linear_map(module), module.weight.detach().T)
    module = plain()
    module.forward = lambda rows: nn.functional.linear(rows, 2 * module.weight, module.bias)
    torch.testing.assert_close(linear_map(module), 2 * module.weight.detach().T)


def test_hooks_are_no_part_of_it() -> None:
    class Named(nn.Linear):
        pass

    module = Named(D_IN, D_OUT)
    wanted = linear_map(module)
    module.register_forward_hook(lambda _m, _a, out: 3 * out)
    assert torch.equal(linear_map(module), wanted)


def test_a_module_without_sizes_is_refused() -> None:
    assert shape_in_out(nn.ReLU()) is None
    with pytest.raises(ModelError, match="A ReLU does not say how many values"):
        linear_map(nn.ReLU())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options", [{}, {"use_dora": True}, {"use_rslora": True, "lora_bias": True}]
)
def test_a_layer_of_peft(options: dict[str, Any], dtype: torch.dtype) -> None:
    peft = pytest.importorskip("peft")
    base = nn.Sequential(plain(dtype=dtype))
    config = peft.LoraConfig(
        r=4, target_modules=["0"], init_lora_weights=bool(options.get("use_dora")), **options
    )
    model = peft.get_peft_model(copy.deepcopy(base), config).eval()
    module = model.base_model.model[0]
    assert shape_in_out(module) == (D_IN, D_OUT)
    found, offset = linear_map(module), linear_offset(module)
    with model.disable_adapter():
        assert torch.equal(linear_map(module), base[0].weight.float().T)
    merged = model.merge_and_unload()[0]
    exact = dict(atol=1e-6, rtol=1e-5) if dtype == torch.float32 else dict(atol=2e-3, rtol=1e-2)
    torch.testing.assert_close(found, merged.weight.detach().float().T, **exact)
    assert offset is not None
    torch.testing.assert_close(offset, merged.bias.detach().float(), **exact)
    if "use_dora" not in options:
        assert not torch.allclose(found, base[0].weight.detach().float().T, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_a_quantised_linear(name: str, dtype: torch.dtype) -> None:
    ao = pytest.importorskip("torchao.quantization")
    base = nn.Sequential(plain(dtype=dtype))
    quantised = copy.deepcopy(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ao.quantize_(quantised, getattr(ao, name)())
    module = quantised[0]
    assert is_quantised(module)
    assert not is_its_weight(module)
    found = linear_map(module)
    wanted = module.weight.dequantize().detach().float().T
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(found, brute_force(module, dtype), atol=4e-3, rtol=1e-2)
    assert not torch.equal(found, base[0].weight.float().T)
    torch.testing.assert_close(linear_offset(module), base[0].bias.detach().float())
