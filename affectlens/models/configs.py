"""Reading the config of a model, and refusing from it what cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from affectlens.core.errors import ModelError
from affectlens.models.checkpoint_files import check_gguf, check_is_model_folder
from affectlens.models.reading_errors import first_line, one_sentence
from affectlens.models.refusals import check_config_file, check_task


def read_config(source: str) -> Any:
    """The config of a folder, a hub id or a GGUF file, if it is that of a language model.

    A hub id fetches its config alone.

    Raises:
        ModelError: If there is none, or what it says cannot be loaded; no weight is read for that.
    """
    if source.endswith(".gguf"):
        return _of_gguf(Path(source))
    from transformers import AutoConfig, PreTrainedConfig

    if Path(source).is_dir():
        check_is_model_folder(Path(source))
    with one_sentence(source):
        try:
            found: Any = PreTrainedConfig.get_config_dict(source)[0]
        except TypeError:  # older versions look into what is no mapping
            found = {}
        given = cast("Mapping[str, Any]", found if isinstance(found, Mapping) else {})
        check_config_file(given, source)
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    check_task(config, source)
    return config


def _of_gguf(path: Path) -> Any:
    import transformers

    family = check_gguf(path)
    try:
        config = transformers.AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name)
    except Exception as error:  # an unknown family, or keys that its reader expects
        raise ModelError(
            f"transformers {transformers.__version__} cannot read GGUF files of the family "
            f"{family!r} ({path}: {first_line(error)}); use a safetensors version of the model."
        ) from error
    check_task(config, str(path))
    return config


def auto_class(config: Any) -> Any:
    """The class of transformers that loads a model with its unembedding, by its config.

    A checkpoint for images or sound is loaded whole, as it was saved, although some families have a
    class for its text alone; the language model is found in it (`affectlens.models.anatomy`).
    """
    from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM
    from transformers.models.auto import modeling_auto

    whole = modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.get(config.model_type)
    saved = next(iter(getattr(config, "architectures", None) or ()), None)
    if saved == whole or type(config) not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForMultimodalLM if whole is not None else AutoModelForCausalLM
    return AutoModelForCausalLM
