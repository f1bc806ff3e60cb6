"""Adapters of PEFT beside a model's weights: part of what the model computes, and of its name.

An adapter acts in the modules that it wraps, so a model with adapters inside is read and steered
like any other. Which ones act is looked up whenever it is asked for: they can be switched on and
off (``disable_adapter``), and merged, at any time. PEFT need not be installed to tell.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from affectlens.core.errors import ModelError
from affectlens.core.extras import needed
from affectlens.models.checkpoint_files import check_safetensors
from affectlens.models.reading_errors import one_sentence

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter_folder(path: str | Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    folder = Path(path)
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """The model that an adapter was made for, by the name that its folder gives.

    Raises:
        ModelError: If it gives none, or its weights are not there as safetensors.
    """
    try:
        base = json.loads((folder / CONFIG).read_bytes()).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{folder / CONFIG} is damaged; save the adapter again.") from error
    if not base:
        raise ModelError(
            f"{folder / CONFIG} does not name the model that the adapter is for "
            "(base_model_name_or_path); write it there."
        )
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"{folder} holds no {WEIGHTS}; save the adapter as safetensors, pickled weights are "
            "not read."
        )
    check_safetensors(folder / WEIGHTS)
    return str(base)


def with_adapter(hf: Any, folder: Path) -> Any:
    """The same model with the adapter of a folder inside, active.

    Raises:
        ModelError: If PEFT is not installed, the adapter does not fit, or it lengthens prompts.
    """
    peft = needed("peft", f"{folder} holds an adapter, which")
    with one_sentence(str(folder)):
        wrapped: Any = peft.PeftModel.from_pretrained(hf, str(folder))
    return without_wrapper(wrapped).eval()


def without_wrapper(source: Any) -> Any:
    """The Hugging Face model inside a ``PeftModel``; anything else as it is.

    Raises:
        ModelError: If the adapter puts tokens of its own before every prompt: positions, and what
            is read at them, would be off by these.
    """
    if not _is_a(source, "PeftModel"):
        return source
    if any(getattr(c, "is_prompt_learning", False) for c in source.peft_config.values()):
        kind = next(iter(source.peft_config.values())).peft_type
        raise ModelError(
            f"This {type(source).__name__} puts learnt tokens before every prompt "
            f"({getattr(kind, 'value', kind)}), so no position in it is the text's; use an adapter "
            "of weights, such as LoRA."
        )
    return source.get_base_model()


def has_adapters(hf: nn.Module) -> bool:
    """Whether any module is wrapped by an adapter, at work or not."""
    return any(True for _ in _wrapped(hf))


def active_adapters(hf: nn.Module) -> tuple[str, ...]:
    """Names of the adapters that act just now, in no weight and switched on."""
    return tuple(dict.fromkeys(name for _, module in _wrapped(hf) for name in _acting(module)))


@contextmanager
def adapters_off(hf: nn.Module, name: str) -> Generator[None, None, None]:
    """Switch every adapter that acts off for the length of the block.

    Args:
        hf: The model.
        name: For messages.

    Raises:
        ModelError: If none acts, so that there is nothing to switch off.
    """
    acting: list[Any] = [module for _, module in _wrapped(hf) if _acting(module)]
    if not acting:
        raise ModelError(
            f"{name} has no adapter at work that could be switched off (a merged one cannot); give "
            "the base and the tuned model."
        )
    trained = {id(p): p.requires_grad for p in hf.parameters()}
    try:
        for module in acting:
            module.enable_adapters(False)
        yield
    finally:
        for module in acting:
            module.enable_adapters(True)
        for parameter in hf.parameters():  # PEFT changes what is trained along with it
            parameter.requires_grad_(trained[id(parameter)])


def adapter_facts(hf: nn.Module) -> dict[str, Any]:
    """What the adapters that act do besides their weights, as JSON: kind and scale, per module."""
    facts: dict[str, Any] = {}
    for path, module in _wrapped(hf):
        scales: Any = getattr(module, "scaling", {})
        for name in _acting(module):
            scale = scales.get(name) if isinstance(scales, Mapping) else None
            facts[f"{path}:{name}"] = [type(module).__name__, scale]
    return facts


def as_computed(hf: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's tensors as its present adapters leave them.

    Those of adapters that do not act are left out, and what an adapter wraps has the name that it
    has without one: a model with all adapters off, or merged, has the tensors of the plain model.
    """
    found = dict(tensors)
    for path, module in _wrapped(hf):
        acting = _acting(module)
        inner, kept = ("base_layer.", module) if _is_layer(module) else ("original_module.", None)
        for name in [n for n in found if n.startswith(f"{path}.")]:
            own = name.removeprefix(f"{path}.")
            values = found.pop(name)
            if own.startswith(inner):
                if kept is not None or not acting:
                    found[f"{path}.{own.removeprefix(inner)}"] = values
            elif any(f".{adapter}." in f".{own}." for adapter in acting):
                copied = f"modules_to_save.{acting[0]}." if acting else ""
                replaces = kept is None and own.startswith(copied)
                found[f"{path}.{own.removeprefix(copied)}" if replaces else name] = values
    return found


def _acting(module: Any) -> tuple[str, ...]:
    if getattr(module, "disable_adapters", False) or getattr(module, "_disable_adapters", False):
        return ()
    names = getattr(module, "active_adapters", None) or ()
    merged = set(getattr(module, "merged_adapters", None) or ())
    there = {part for name, _ in module.named_parameters() for part in name.split(".")}
    return tuple(str(n) for n in names if n not in merged and n in there)


def _wrapped(hf: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules with an adapter, by name; the outer one of two comes first."""
    for name, module in hf.named_modules():
        if _is_layer(module) or _is_a(module, "ModulesToSaveWrapper"):
            yield name, module


def _is_layer(module: nn.Module) -> bool:
    return _is_a(module, "BaseTunerLayer") and hasattr(module, "base_layer")


def _is_a(value: Any, name: str) -> bool:
    # By name: PEFT need not be installed, and importing it takes seconds.
    return any(cls.__name__ == name for cls in type(value).__mro__)
