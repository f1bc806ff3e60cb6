"""The matrix that a module applies, whatever it keeps its weights in.

A weight need not be what its module computes: adapters add to it, quantised modules hold codes,
GPT-2 keeps it transposed, and one that is offloaded is not there. So the identity is pushed
through the module. Only where a module is nothing but its matrix is that read off, which is the
same number by number.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.core.errors import ModelError
from affectlens.models.placement import device_of, loaded, own_forward

CHUNK = 2048
"""Rows of the identity pushed through at once; bounds the memory of inputs and outputs."""

_HALF = (torch.bfloat16, torch.float16)


def shape_in_out(module: nn.Module) -> tuple[int, int] | None:
    """How many values a linear module takes and gives; None if it is no linear module."""
    for names in (("in_features", "out_features"), ("nx", "nf")):  # the second: GPT-2's
        sizes = [getattr(module, name, None) for name in names]
        if all(isinstance(size, int) for size in sizes):
            return cast("tuple[int, int]", tuple(sizes))
    return None


def linear_map(
    module: nn.Module, *, only: Sequence[int] | None = None
) -> Float[Tensor, "d_in d_out"]:
    """What a module makes of each unit of its input, without its bias: fp32, where it computes.

    Args:
        module: A linear module: plain, quantised, offloaded, with adapters, of any library.
        only: The outputs to keep; default: all.

    Raises:
        ModelError: If it is no linear module.
    """
    with torch.no_grad(), loaded(module):
        if is_its_weight(module):
            weight = cast("Tensor", module.weight).detach()
            weight = weight if is_conv1d(module) else weight.T
            return (weight if only is None else weight[:, list(only)]).to(torch.float32)
        return pushed_identity(module, only=only)


def linear_offset(module: nn.Module) -> Float[Tensor, " d_out"] | None:
    """What a linear module gives for zeros: its bias, fp32; None if that is nothing.

    Raises:
        ModelError: If it is no linear module.
    """
    with torch.no_grad(), loaded(module):
        if is_its_weight(module):
            bias = cast("Tensor | None", module.bias)
            return None if bias is None else bias.detach().to(torch.float32)
        run = _Pushed(module, bias=True)
        found = run(torch.zeros(1, _sizes(module)[0], device=run.device))[0]
        return found if bool(found.any()) else None


@torch.no_grad()
def pushed_identity(
    module: nn.Module, *, only: Sequence[int] | None = None, chunk: int = CHUNK
) -> Float[Tensor, "d_in d_out"]:
    """As `linear_map`, by pushing the identity through, also where the matrix could be read off.

    Args:
        module: A linear module whose weights are in memory.
        only: The outputs to keep; default: all.
        chunk: Rows pushed through at once.
    """
    d_in, _ = _sizes(module)
    kept = slice(None) if only is None else list(only)
    run = _Pushed(module, bias=False)
    rest = run(torch.zeros(1, d_in, device=run.device))[:, kept]
    found = torch.empty(d_in, rest.shape[1], device=rest.device)
    for start in range(0, d_in, chunk):
        rows = torch.zeros(min(chunk, d_in - start), d_in, device=run.device)
        rows[:, start:].fill_diagonal_(1.0)
        found[start : start + chunk] = run(rows)[:, kept] - rest
    return found


def is_its_weight(module: Any) -> bool:
    """Whether a module is `torch.nn.Linear` or GPT-2's, over a plain matrix of numbers."""
    known = type(module) is nn.Linear or is_conv1d(module)
    return known and is_plain(module.weight) and own_forward(module)


def is_plain(values: Any) -> bool:
    """Whether a tensor is just its numbers, of at least 16 bits: no codes, no subclass."""
    return (
        type(values) in (Tensor, nn.Parameter)
        and values.is_floating_point()
        and values.element_size() > 1
    )


def is_quantised(module: nn.Module) -> bool:
    """Whether anything in a module is kept in another way than as plain numbers."""
    tensors = (*module.parameters(), *module.buffers())
    # Some libraries keep their codes in no parameter at all.
    return not tensors or not all(is_plain(values) for values in tensors)


@contextmanager
def unpacked(module: nn.Module) -> Generator[None, None, None]:
    """Let quantised linear modules at or below a module compute with their `linear_map`, in fp32.

    Hooks on them run as ever. What such a module does besides, rounding its input for example, is
    left out meanwhile.
    """
    with ExitStack() as stack:
        for each in module.modules():
            if shape_in_out(each) is not None and is_quantised(each):
                stack.enter_context(_computing_as(each, linear_map(each), linear_offset(each)))
        yield


@contextmanager
def _computing_as(
    module: Any, weight: Float[Tensor, "d_in d_out"], bias: Tensor | None
) -> Generator[None, None, None]:
    def forward(rows: Tensor) -> Tensor:
        return nn.functional.linear(rows.float(), weight.T, bias)

    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def is_conv1d(module: nn.Module) -> bool:
    """Whether it is GPT-2's linear layer, which keeps its weight transposed: ``[in, out]``."""
    kind = type(module)
    return (kind.__module__, kind.__qualname__) == ("transformers.pytorch_utils", "Conv1D")


class _Pushed:
    """Calls a module on rows of fp32, past the hooks that are on it.

    Where all its weights are plain numbers they are widened to fp32, so that nothing is rounded on
    the way; quantised ones compute in their own format.
    """

    def __init__(self, module: nn.Module, *, bias: bool) -> None:
        self._shell = _Shell(module)
        self.device = device_of(module)
        self._dtype = torch.float32
        tensors = {**dict(self._shell.named_parameters()), **dict(self._shell.named_buffers())}
        self._values: dict[str, Tensor] = {}
        if is_quantised(module):
            self._dtype = _own_dtype(module)
        else:
            self._values = {n: t.float() for n, t in tensors.items() if t.dtype in _HALF}
        if not bias:  # taken off before it is rounded into the result
            self._values |= {
                name: torch.zeros_like(self._values.get(name, values))
                for name, values in tensors.items()
                if name.rpartition(".")[2] == "bias" and is_plain(values)
            }

    def __call__(self, rows: Float[Tensor, "row d_in"]) -> Float[Tensor, "row d_out"]:
        """What comes out, fp32."""
        rows = rows.to(self._dtype)
        return torch.func.functional_call(self._shell, self._values, (rows,)).float()


class _Shell(nn.Module):
    """Calls another module's forward, past its hooks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, rows: Tensor) -> Tensor:
        """What the module computes."""
        return self.module.forward(rows)


def _own_dtype(module: Any) -> torch.dtype:
    """The number format in which a quantised module computes, as far as it says."""
    said = getattr(module, "compute_dtype", None)
    if isinstance(said, torch.dtype):
        return said
    tensors = (*module.parameters(), *module.buffers())
    wide = [t.dtype for t in tensors if t.is_floating_point() and t.element_size() > 1]
    return wide[0] if wide else torch.float32


def _sizes(module: nn.Module) -> tuple[int, int]:
    sizes = shape_in_out(module)
    if sizes is None:
        raise ModelError(
            f"A {type(module).__name__} does not say how many values it takes and gives, so it is "
            "no linear module that units could be told apart at."
        )
    return sizes
