"""What can be told from a config alone: whether a model writes text from left to right.

Everything here runs before a weight is read, and says what the model is instead of how it fails.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from affectlens.core.errors import ModelError

_CLASSIFIER = re.compile(
    r"For(\w*Classification|QuestionAnswering|MultipleChoice|NextSentencePrediction)$|RewardModel$"
)
_QUANTISERS: Mapping[str, tuple[str, ...]] = {
    "aqlm": ("aqlm",),
    "auto-round": ("auto-round",),
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed-tensors",),
    "eetq": ("kernels",),
    "gptq": ("optimum", "gptqmodel"),
    "hqq": ("hqq",),
    "quanto": ("optimum-quanto",),
    "quark": ("amd-quark",),
    "torchao": ("torchao",),
    "vptq": ("vptq",),
}
"""Packages that transformers needs to read weights quantised by a method."""

_MODULES = {"optimum-quanto": "optimum.quanto", "amd-quark": "quark"}
"""Names to import, where these are not the names of the packages."""

USE = "use a decoder-only language model"


def check_config_file(given: Mapping[str, Any], source: str) -> None:
    """Refuse what the text of a config shows, before transformers makes an object of it.

    Args:
        given: What ``config.json`` holds.
        source: What the user called the model.

    Raises:
        ModelError: If it is no config of transformers, of a type that this version does not know,
            needs code that comes with it, or is quantised by a method that cannot be read here.
    """
    import transformers

    if "_diffusers_version" in given or "_class_name" in given:
        part = given.get("_class_name", "a part")
        raise ModelError(f"{source} belongs to a diffusion pipeline ({part}); {USE}.")
    kind = given.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise ModelError(
            f"{source} has a config.json without a model_type, so it is not known what model it "
            "is; use a folder that transformers wrote."
        )
    if kind not in transformers.CONFIG_MAPPING:
        if given.get("auto_map"):
            raise ModelError(
                f"{source} needs Python code that comes with it (its auto_map), which affectlens "
                "does not run; use a version of the model that transformers reads by itself, or "
                "load it yourself and pass the object: load_model(model, tokenizer=...)."
            )
        raise ModelError(
            f"{source} is of the type {kind!r}, which transformers {transformers.__version__} does "
            "not know; a newer transformers may."
        )
    _check_quantiser(given, source)


def check_task(model_or_config: Any, source: str) -> None:
    """Refuse models that do not write text from left to right in one stream.

    Args:
        model_or_config: A config, or a model in memory, whose class counts then.
        source: What the user called it.

    Raises:
        ModelError: For encoder-decoders, classifiers, models that fill gaps, models without
            an unembedding, models of other things than text.
    """
    config = getattr(model_or_config, "config", model_or_config)
    if config is not model_or_config:
        names = [cls.__name__ for cls in type(model_or_config).__mro__]
    else:
        names = [str(name) for name in (getattr(config, "architectures", None) or ())][:1]
    kind = str(getattr(config, "model_type", ""))
    what = names[0] if names else kind
    named = f" ({what})" if what and what != source else ""
    if _encoder_decoder(config):
        raise ModelError(
            f"{source} is an encoder-decoder{named}: its text runs through two stacks of blocks, "
            f"and affectlens follows one; {USE}."
        )
    if "diffusion" in what.lower() or "diffusion" in kind:
        raise ModelError(
            f"{source} writes by diffusion{named}, many tokens at once, not one after another; "
            f"{USE}."
        )
    if config is model_or_config and kind not in _kinds_of_text():
        raise ModelError(f"{source} is no language model{named}: it continues no text; {USE}.")
    if _CLASSIFIER.search(what):
        raise ModelError(
            f"{source} is a classifier{named}: it has a head for labels and none for tokens; use "
            "the language model that it was made from."
        )
    if _fills_gaps(config, kind, what):
        raise ModelError(
            f"{source} reads in both directions{named}: it fills gaps or embeds texts and does "
            f"not continue them; {USE}."
        )
    if not any(name in _writers() for name in names) and _ends_early(model_or_config, what):
        raise ModelError(
            f"{source} ends before the unembedding{named}, so it gives no probabilities of "
            "tokens; use the version with its language model head."
        )


def _encoder_decoder(config: Any) -> bool:
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return any(getattr(each, "is_encoder_decoder", False) is True for each in (config, text))


def _fills_gaps(config: Any, kind: str, what: str) -> bool:
    from transformers.models.auto import modeling_auto

    if "ForMaskedLM" in what or getattr(config, "use_bidirectional_attention", False) is True:
        return True
    encoder = kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return encoder and getattr(config, "is_decoder", None) is False


def _ends_early(model_or_config: Any, what: str) -> bool:
    """Whether there is nothing that turns the stream into logits."""
    from transformers.models.auto import modeling_auto

    if hasattr(model_or_config, "config"):
        unembedding = getattr(model_or_config, "get_output_embeddings", None)
        return unembedding is not None and unembedding() is None
    classes = modeling_auto.MODEL_MAPPING_NAMES.values()
    bare = {name for each in classes for name in ([each] if isinstance(each, str) else each)}
    # A tied unembedding is the embedding, so nothing is missing without a head.
    text = model_or_config.get_text_config()
    return what in bare and getattr(text, "tie_word_embeddings", False) is not True


def _mappings() -> tuple[Mapping[Any, Any], ...]:
    from transformers.models.auto import modeling_auto

    return (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    )


def _writers() -> set[str]:
    """Classes of transformers that write text."""
    return {str(name) for mapping in _mappings() for name in mapping.values()}


def _kinds_of_text() -> set[str]:
    """Types of config that have a class for texts, also one that only fills gaps."""
    from transformers.models.auto import modeling_auto

    mappings = (*_mappings(), modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    return {kind for mapping in mappings for kind in mapping}


def _check_quantiser(given: Mapping[str, Any], source: str) -> None:
    import transformers
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    settings = given.get("quantization_config")
    if not isinstance(settings, Mapping):
        settings = {}
    method = settings.get("quant_method")
    if method is None and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        method = "bitsandbytes"
    if method is None:
        if isinstance(given.get("quantization"), Mapping):
            raise ModelError(
                f"{source} is quantised for MLX, whose weights transformers cannot read; use a "
                "version that is not, or one quantised for transformers."
            )
        if settings:
            raise ModelError(
                f"{source} has a quantization_config without a quant_method, so it is not known "
                "how to read its weights; use a version that is not quantised."
            )
        return
    if method not in {"bitsandbytes", *AUTO_QUANTIZATION_CONFIG_MAPPING}:
        raise ModelError(
            f"{source} is quantised by {method}, which transformers {transformers.__version__} "
            "cannot read; use a version that is not, or one quantised by another method."
        )
    lacking = [name for name in _QUANTISERS.get(str(method), ()) if not _installed(name)]
    if lacking:
        raise ModelError(
            f"{source} is quantised by {method}, which needs {' and '.join(lacking)}: "
            f"pip install {' '.join(lacking)}."
        )


def _installed(package: str) -> bool:
    try:
        return find_spec(_MODULES.get(package, package.replace("-", "_"))) is not None
    except ModuleNotFoundError:  # a parent package is not there
        return False
