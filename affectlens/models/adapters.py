"""Models that carry adapters beside their weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from affectlens.core.errors import ModelError


def refuse_adapters(hf: Any) -> None:
    """Refuse a PEFT model and a model with PEFT's adapters inside, merged or not.

    An adapter can be switched, trained or removed at any time, and what it adds is in no weight
    that heads and neurons could be told from.

    Raises:
        ModelError: With the way to merge them.
    """
    if _is_a(hf, "PeftModel"):
        raise ModelError(
            f"A {type(hf).__name__} carries adapters beside its weights; merge them: "
            "load_model(model.merge_and_unload(), tokenizer=...)."
        )
    for name, module in hf.named_modules() if isinstance(hf, nn.Module) else ():
        if _is_a(module, "BaseTunerLayer"):
            raise ModelError(
                f"This {type(hf).__name__} has an adapter of PEFT inside ({name}); merge it into "
                "the weights (merge_and_unload of the PEFT model) and pass what that returns."
            )


def _is_a(value: Any, name: str) -> bool:
    # By name: PEFT need not be installed, and importing it takes seconds.
    return any(cls.__name__ == name for cls in type(value).__mro__)
