"""What a block adds up, read off the operations it really runs.

While a block runs, every addition and every scaling outside of its modules is followed, so its
output is known as a sum of what went in and of what its modules gave, with exact factors. No
number is fitted: Granite's multiplier, Gemma 4's factor per layer, parallel blocks and norms after
a sublayer all come out as what they are, in any number format and on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from affectlens.models.hooking.attention_patterns import AttentionCall, attention_calls
from affectlens.models.hooking.values import first_input, first_output, input_name

Sum = Mapping["nn.Module | None", float]
"""Factors of the outputs of modules; None stands for what the block was given."""

_ADD = frozenset({"add", "__add__", "__radd__", "add_", "__iadd__"})
_SUBTRACT = frozenset({"sub", "__sub__", "sub_", "__isub__", "subtract"})
_MULTIPLY = frozenset({"mul", "__mul__", "__rmul__", "mul_", "__imul__", "multiply"})
_DIVIDE = frozenset({"div", "__truediv__", "div_", "__itruediv__", "true_divide"})
_SAME = frozenset(
    {"to", "float", "half", "bfloat16", "type", "type_as", "contiguous", "clone", "detach"}
    | {"view", "view_as", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten", "__getitem__"}
    | {"dropout", "dropout_", "cpu", "cuda"}
)
"""What gives back the same numbers, in another shape, format or place."""


@dataclass(eq=False)
class ModuleCall:
    """What a module did in one pass of a block.

    Attributes:
        args, kwargs: What it was called with.
        given: What its first input adds up to; None if that is no sum.
        made: What its own output adds up to, in outputs of modules within it; None if no sum.
        output: Its (first) output.
        depth: How many modules of the block it was called within.
        times: How often it was called.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    given: Sum | None
    depth: int
    made: Sum | None = None
    output: Tensor | None = None
    times: int = 1


@dataclass(eq=False)
class BlockCall:
    """What a block did in one pass.

    Attributes:
        before: What went in, before anything was written over.
        after: What came out.
        sum: What that adds up to; None if it is no sum of what modules gave.
        calls: Its modules that ran, in the order in which they began.
        attended: Heads and width of values of each attention that transformers ran, by module.
    """

    before: Tensor | None = None
    after: Tensor | None = None
    sum: Sum | None = None
    calls: dict[nn.Module, ModuleCall] = field(default_factory=dict[nn.Module, ModuleCall])
    attended: dict[nn.Module, tuple[int, int]] = field(
        default_factory=dict[nn.Module, tuple[int, int]]
    )


class _Follower(TorchFunctionMode):
    """Knows what every tensor of the block that runs now adds up to."""

    def __init__(self) -> None:
        super().__init__()
        self.block: BlockCall | None = None
        self.depth = 0
        self._sums: dict[int, Sum] = {}
        self._alive: list[Any] = []  # an id is only good as long as its tensor lives

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.block is not None and isinstance(out, Tensor):
            self.put(out, self._sum(str(getattr(func, "__name__", "")), args, out))
        return out

    def begin(self, block: BlockCall) -> None:
        self.block, self.depth, self._sums, self._alive = block, 0, {}, []

    def end(self) -> None:
        self.block, self._sums, self._alive = None, {}, []

    def get(self, tensor: Any) -> Sum | None:
        return self._sums.get(id(tensor)) if isinstance(tensor, Tensor) else None

    def put(self, tensor: Tensor, value: Sum | None) -> None:
        if value is None:
            self._sums.pop(id(tensor), None)
            return
        self._sums[id(tensor)] = value
        self._alive.append(tensor)

    def _sum(self, name: str, args: Sequence[Any], out: Tensor) -> Sum | None:
        if not args:
            return None
        first = self.get(args[0])
        if name in _SAME:
            return first if first is not None and out.numel() == args[0].numel() else None
        if len(args) < 2:
            return None
        second = self.get(args[1])
        if name in _ADD or name in _SUBTRACT:
            sizes = {x.numel() if isinstance(x, Tensor) else 0 for x in args[:2]}
            if first is None or second is None or sizes != {out.numel()}:
                return None
            return _added(first, second, -1.0 if name in _SUBTRACT else 1.0)
        if name in _MULTIPLY or name in _DIVIDE:
            value, other = (first, args[1]) if first is not None else (second, args[0])
            factor = _number(other)
            if value is None or factor is None or (name in _DIVIDE and first is None):
                return None
            return _added({}, value, 1 / factor if name in _DIVIDE and factor else factor)
        return None


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_meta:
            return None
        return float(value)
    return float(value) if isinstance(value, (int, float)) else None


def _added(first: Sum, second: Sum, factor: float) -> Sum:
    total = dict(first)
    for module, value in second.items():
        total[module] = total.get(module, 0.0) + factor * value
    return {module: value for module, value in total.items() if value != 0}


@contextmanager
def following(blocks: Sequence[nn.Module]) -> Generator[list[BlockCall], None, None]:
    """Follow what blocks add up in the forward pass inside.

    Yields:
        One `BlockCall` per block, filled as they run.
    """
    found = [BlockCall() for _ in blocks]
    follower = _Follower()
    with ExitStack() as stack:
        for block, call in zip(blocks, found, strict=True):
            _follow(block, call, follower, stack)
        stack.enter_context(_attention(follower))
        stack.enter_context(follower)
        yield found


def _follow(block: nn.Module, call: BlockCall, follower: _Follower, stack: ExitStack) -> None:
    """Hook a block and all that is in it."""

    def begins(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = first_input(args, kwargs)
        follower.begin(call)
        call.before = given.detach().clone()
        follower.put(given, {None: 1.0})

    def ends(_module: nn.Module, _args: Any, output: Any) -> None:
        output = first_output(output)
        call.after, call.sum = output.detach().clone(), follower.get(output)
        follower.end()

    def enters(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if follower.block is not call:
            return
        follower.depth += 1
        if module in call.calls:
            call.calls[module].times += 1
            return
        given: Any = first_input(args, kwargs) if args or kwargs else None
        call.calls[module] = ModuleCall(args, kwargs, follower.get(given), follower.depth - 1)

    def leaves(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if follower.block is not call:
            return
        follower.depth -= 1
        output = first_output(output)
        if not isinstance(output, Tensor):
            return
        if any(output is x for x in (*args, *kwargs.values())):
            return  # dropout at rest, Identity, a hook point: what came is what goes
        one, made = call.calls[module], follower.get(output)
        one.output = output.detach().clone()
        one.made = made
        inside = set(module.modules())
        if made is not None and any(part is None or part not in inside for part in made):
            return  # it adds to the stream itself (Bloom): what it added is told by its parts
        follower.put(output, {module: 1.0})

    for name, module in block.named_modules():
        if name:
            stack.callback(module.register_forward_pre_hook(enters, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(leaves, with_kwargs=True).remove)
    stack.callback(block.register_forward_pre_hook(begins, with_kwargs=True).remove)
    stack.callback(block.register_forward_hook(ends).remove)


@contextmanager
def _attention(follower: _Follower) -> Generator[None, None, None]:
    """Note which modules run attention, and how many heads they have."""

    def seen(call: AttentionCall) -> None:
        output = call.output
        if follower.block is not None and output.ndim == 4:
            follower.block.attended[call.module] = (int(output.shape[2]), int(output.shape[3]))

    with attention_calls(seen):
        yield


def run_again(
    module: nn.Module, call: ModuleCall, change: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """The output of a module called once more with its first input changed; None if it fails."""
    args, kwargs = call.args, dict(call.kwargs)
    if args:
        args = (change(args[0]), *args[1:])
    else:
        name = input_name(kwargs)
        kwargs[name] = change(kwargs[name])
    try:
        with torch.no_grad():
            output = first_output(module(*args, **kwargs))
    except Exception:  # modules that keep a state of the pass may refuse another call
        return None
    return output if isinstance(output, Tensor) else None
