"""The untrained model: the same architecture with weights drawn anew, where no circuit can be."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit
    from affectlens.models.loading import LanguageModel


def untrained(model: LanguageModel, seed: int = 0) -> LanguageModel:
    """A model of the same config and tokenizer, its weights as before any training.

    Args:
        model: Of a Hugging Face class that is made from a config.
        seed: Of the weights; torch's own generator is left as it was.
    """
    from affectlens.models.loading import load_model

    hf: Any = model.hf
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = type(hf)(copy.deepcopy(hf.config))
    made = made.to(model.dtype).to(model.device).eval()
    return load_model(made, tokenizer=model.tokenizer)


def transplanted(circuit: Circuit, model: LanguageModel) -> Circuit:
    """The same places in another model of the same shape, to test them there."""
    made_by = dataclasses.replace(
        circuit.provenance,
        model=model.fingerprint,
        model_name=model.name,
        parameters={**circuit.provenance.parameters, "transplanted": circuit.provenance.model},
    )
    return dataclasses.replace(circuit, evidence=None, provenance=made_by)
