"""A whole run in seconds: a tiny model and a tiny sentence encoder as files, real in every part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from affectlens.pipeline import RunConfig, run
from affectlens.pipeline.settings import Settings
from tests.conftest import tiny_hf, tiny_tokenizer

SMALL: Mapping[str, Any] = {
    "n_events": 2,
    "steps": 2,
    "extensions": 0,
    "garbled": 16,
    "scenarios": 1,
    "draws": 50,
    "example_events": 1,
    "groups": 4,
    "few_groups": 3,
    "means_scenarios": 2,
    "texts": 64,
    "epochs": 1,
    "long_texts": 2,
}
"""Settings of whatever stage, as small as they go."""


def small(settings: Any) -> Any:
    """The settings with little to do: a few events, steps and strengths."""
    changes: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            changes[field.name] = small(value)
        elif field.name == "strengths" and isinstance(value[0], tuple):
            changes[field.name] = tuple((name, tried[:2]) for name, tried in value)
        elif field.name in SMALL and not (field.name == "draws" and value < SMALL["draws"]):
            changes[field.name] = SMALL[field.name]
    return replace(settings, **changes)


def options(folder: Path, **more: Any) -> dict[str, Any]:
    """Of a run on the model of `save_parts`."""
    return {
        "model": str(folder / "model"),
        "out": folder / "run",
        "device": "cpu",
        "dtype": "float32",
        "max_new_tokens": 6,
        **more,
    }


def run_small(folder: Path, *, until: str | None = None, **more: Any) -> dict[str, str]:
    """Run the stages, and say what became of each: ``"done"`` or ``"skipped"``."""
    config = RunConfig.checked(**options(folder, **more))
    said: dict[str, str] = {}
    run(
        config,
        until=until,
        settings=small(Settings.of(config)),
        on_stage=lambda stage, what, _seconds: said.update({stage.name: what}),
    )
    return said


def done(said: Mapping[str, str]) -> set[str]:
    """The stages that were done anew."""
    return {name for name, what in said.items() if what == "done"}


def save_model(folder: Path, positions: int = 1024) -> None:
    """A tiny Llama with room for whole chats."""
    tiny_hf("llama", max_position_embeddings=positions).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")


def save_encoder(folder: Path, seed: int = 0) -> None:
    """A tiny random BERT that reads letters, with a tokenizer of its own."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters)]
    reader = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    reader.normalizer = normalizers.BertNormalizer(lowercase=True)
    reader.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    reader.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=reader, model_max_length=512, **names).save_pretrained(
        folder
    )
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=512,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)


def save_judge(file: Path, encoder_folder: Path, seed: int = 0) -> None:
    """An adapter of random numbers that fits the tiny encoder and no other."""
    import torch

    from affectlens.evaluation.judges.encoder import load_encoder, shipped_adapter
    from affectlens.evaluation.judges.encoder_identity import encoder_fingerprint

    encoder, tokenizer = load_encoder(encoder_folder)
    shipped = shipped_adapter()
    generator = torch.Generator().manual_seed(seed)
    made_by = replace(shipped.provenance, model=encoder_fingerprint(encoder, tokenizer))
    k, width = len(shipped.labels), int(encoder.config.hidden_size)
    replace(
        shipped,
        deltas={},
        head_weight=torch.randn(k, width, generator=generator) * 3,
        head_bias=torch.zeros(k),
        provenance=made_by,
    ).save(file)
