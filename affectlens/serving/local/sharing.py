"""May rows of a model that began at different times be written in one pass? Found out by doing it.

Whether padding changes what a row computes is known from `affectlens.models.anatomy.padding`. Here
rows also join a cache that others have filled, so that is tried once, on the model's own numbers.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from affectlens.core import ModelError
from affectlens.models.anatomy.padding import TOLERANCE
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.serving.local.batches import OneBatch
from affectlens.serving.local.generation import Generation, Token
from affectlens.serving.local.prefill import Group, Prefill
from affectlens.serving.local.row import Row
from affectlens.serving.local.running_cache import plain_cache
from affectlens.serving.local.steered_passes import SteeredPasses

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

_LONG, _SHORT = 11, 7


@torch.inference_mode()
def rows_can_share(model: LanguageModel, columns: int) -> bool:
    """Whether rows can be written together.

    Args:
        model: The model.
        columns: Longest row, in tokens.
    """
    if columns < _LONG + 2 or plain_cache(model.hf, 1) is None:
        return False
    if not model.padding.upto(columns).left:
        return False
    passes = SteeredPasses(model, 2, 4 * _LONG)
    try:
        return _agree(model, passes)
    except (ModelError, ValueError, RuntimeError, IndexError, TypeError):
        return False  # a family whose cache is not what it seems
    finally:
        passes.close()


def _agree(model: LanguageModel, passes: SteeredPasses) -> bool:
    embedding: Any = model.hf.get_input_embeddings()
    vocabulary = int(embedding.weight.shape[0])
    ids = list(islice((i for i in range(5, vocabulary) if i != model.pad_id), _LONG + _SHORT))
    texts = [ids[:_LONG], ids[_LONG:]]
    batch = OneBatch(model, passes)
    settings = GenerationSettings(max_new_tokens=_LONG)

    def joined(text: list[int], prompt: int) -> Row:
        asked = Generation(tuple(text[:prompt]), settings)
        row = Row(f"check-{len(text)}", asked, lambda _: None, lambda _: "", ())
        prefill = Prefill(model, passes, Group((row,)), plain_cache(model.hf, 2 * _LONG))
        prefill.advance(2 * _LONG)
        row.accept(Token(text[prompt]), None)
        batch.join(prefill, 0)
        return row

    first = joined(texts[0], _LONG - 2)
    batch.step()
    first.accept(Token(texts[0][-1]), None)
    joined(texts[1], _SHORT - 1)
    found = batch.step().logits
    alone = torch.stack([_alone(model, text) for text in texts])
    return _error(found, alone) <= TOLERANCE.get(alone.dtype, 0.1)


def _alone(model: LanguageModel, text: list[int]) -> Tensor:
    ids = torch.tensor([text], device=model.device)
    hf: Any = model.hf
    return hf(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, -1]


def _error(value: Tensor, wanted: Tensor) -> float:
    value, wanted = (x.float() - x.float().mean(-1, keepdim=True) for x in (value, wanted))
    error = float((value - wanted).norm() / wanted.norm().clamp_min(1e-12))
    return error if error == error else float("inf")  # NaN is no agreement
