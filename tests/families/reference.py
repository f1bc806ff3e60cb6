"""Plain hooks on plain transformers: one text at a time, no cache, no padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.families.shapes import Family

Seen = Mapping[tuple[int, str], Tensor]
Edits = Mapping[int, Tensor]
"""What is added to the output of a block, at every token."""


def part(root: Any, path: str) -> Any:
    """A module by its path; None if there is none."""
    for name in path.split("."):
        root = root[int(name)] if name.isdigit() else getattr(root, name, None)
        if root is None:
            return None
    return root


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


class Reference:
    """A model and where its parts are, by name."""

    def __init__(self, hf: Any, family: Family) -> None:
        self.hf, self.family = hf, family
        self.blocks = list(part(hf, family.layers))

    def sites(self) -> set[tuple[int, str]]:
        """Of the inputs of named modules, those that there are."""
        found: set[tuple[int, str]] = set()
        for n, block in enumerate(self.blocks):
            paths = {"z": self.family.o, "mlp_post": self.family.down, "resid_mid": self.family.mid}
            found |= {(n, site) for site, path in paths.items() if path and part(block, path)}
        if self.family.heads is not None:
            found = {(n, s) for n, s in found if s != "z" or n in self.family.heads}
        return found

    @torch.no_grad()
    def run(self, ids: Sequence[int], edits: Edits | None = None) -> tuple[Seen, Tensor]:
        """What goes into and comes out of modules, ``[pos, width]``, and logits."""
        seen: dict[tuple[int, str], Tensor] = {}
        handles: list[Any] = []

        def keep(key: tuple[int, str], value: Tensor) -> None:
            seen[key] = value.detach().reshape(len(ids), -1).clone()

        def before(key: tuple[int, str]) -> Callable[..., None]:
            def hook(_module: Any, args: Any, kwargs: Any) -> None:
                keep(key, args[0] if args else kwargs["hidden_states"])

            return hook

        def after(key: tuple[int, str]) -> Callable[..., None]:
            return lambda _module, _args, output: keep(key, _first(output))

        def added(vector: Tensor) -> Callable[..., Any]:
            def hook(_module: Any, _args: Any, output: Any) -> Any:
                new = _first(output) + vector
                return (new, *output[1:]) if isinstance(output, tuple) else new

            return hook

        for n, block in enumerate(self.blocks):
            if edits and n in edits:
                handles.append(block.register_forward_hook(added(edits[n])))
            hook = before((n, "resid_pre"))
            handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
            handles.append(block.register_forward_hook(after((n, "resid_post"))))
            inputs = {"z": self.family.o, "mlp_post": self.family.down}
            for site, path in ({**inputs, "resid_mid": self.family.mid}).items():
                module = path and part(block, path)
                if module:
                    hook = before((n, site))
                    handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
                    if site != "resid_mid":
                        handles.append(module.register_forward_hook(after((n, f"{site} out"))))
            if self.family.third:
                third = part(block, self.family.third)
                handles.append(third.register_forward_hook(after((n, "third"))))
        try:
            logits = self.hf(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
        finally:
            for handle in handles:
                handle.remove()
        return self._with_sublayers(seen), logits

    def _with_sublayers(self, seen: dict[tuple[int, str], Tensor]) -> Seen:
        """What the sublayers add, by subtraction: no module of theirs is looked at."""
        for n in range(len(self.blocks)):
            if (n, "resid_mid") in seen:
                end = seen[n, "resid_post"] / self.family.end
                mid, third = seen[n, "resid_mid"], seen.get((n, "third"))
                seen[n, "attn_out"] = mid - seen[n, "resid_pre"]
                seen[n, "mlp_out"] = end - mid - (0 if third is None else third)
        return seen

    def greedy(self, ids: Sequence[int], edits: Edits | None, new: int) -> list[int]:
        """Greedy tokens, everything computed anew for each."""
        ids, start = list(ids), len(ids)
        for _ in range(new):
            ids.append(int(self.run(ids, edits)[1][-1].argmax()))
        return ids[start:]
