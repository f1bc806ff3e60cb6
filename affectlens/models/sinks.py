"""Attention sinks: the tokens on which heads rest when there is nothing to attend to.

Their residual is many times longer than any other's (at the middle of the default model 150 times)
and says nothing of the text, so a mean that takes one in reads little else. Which tokens they are:

- the first of every row, in nearly every model, whatever it is (Xiao et al., arXiv 2309.17453). It
  has seen nothing but itself, so it is left out of means in models without such a habit, too.
- in some models a delimiter besides, often only where it first stands in a row: a full stop, a line
  break (Sun et al., arXiv 2402.17762). These are looked for in a few fixed texts, once per model:
  a token is a sink if its residual is `RATIO` times as long as the middling one, in the median over
  the middle third of the blocks. Ordinary tokens stay within 2 to 3, sinks are beyond 20.

What is a sink so follows from the model alone, and never from what it is read with: not from the
text, the batch, the engine or the site.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.errors import DataError, ModelError
from affectlens.core.places import Site
from affectlens.models.hooking.hooks import reading

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

Bools = np.ndarray[Any, np.dtype[np.bool_]]

RATIO = 8.0
"""How many times longer than the middling token's a sink's residual is."""

_TEXTS: tuple[str, ...] = (
    "The library opens at nine. It closes at five, except on Friday. On Friday it closes at one.",
    "Boil the water, add the salt and stir. Then add the rice, and wait.\n\nAdd the peas last.\n"
    "Serve it warm, with a slice of lemon.\n\nIt keeps for two days.",
    "First\nSecond\nThird\n- one\n- two\n- three\n1. a\n2. b\n3. c",
    'She said: "The bus (number 7) leaves at 8:30; the next one at 9:30." He said: "Fine!" Is it?',
    "a b c and of the to in a b c and of the to in, or; from it 2 2 0 0 and of the to in from it",
)
"""Neutral, with delimiters of every kind, each of them several times."""

_CHAT: tuple[dict[str, str], ...] = (
    {"role": "user", "content": "Where is the station? And the bus?\n\nThank you."},
    {"role": "assistant", "content": "The station is in the north. The bus stops there.\n\nBye."},
)
_MOST_SPECIAL = 16  # special tokens looked at


@dataclass(frozen=True)
class Sinks:
    """The sink tokens of a model, besides the first token of every row.

    Attributes:
        always: Token ids that are sinks wherever they stand.
        once: Token ids that are sinks where they first stand in a row.
    """

    always: tuple[int, ...] = ()
    once: tuple[int, ...] = ()

    def mask(self, ids: Sequence[int]) -> Bools:
        """Which tokens of a row are sinks, ``[n]``."""
        row = np.asarray(ids)
        found = np.zeros(len(row), np.bool_)
        found[:1] = True
        if self.always:
            found |= np.isin(row, self.always)
        for token in self.once:
            found[np.flatnonzero(row == token)[:1]] = True
        return found

    def facts(self) -> dict[str, Any]:
        """For keys and headers."""
        return {"first": True, "always": list(self.always), "once": list(self.once)}

    def describe(self, tokenizer: Any) -> str:
        """In words, for people."""
        named = ["the first token of a row"]
        for ids, where in ((self.always, "everywhere"), (self.once, "where it first stands")):
            named += [f"{tokenizer.decode([token])!r} {where}" for token in ids]
        return ", ".join(named)


@torch.no_grad()
def find_sinks(model: LanguageModel) -> Sinks:
    """Look for sink tokens in a few fixed texts: a few hundred tokens, run one text at a time.

    Raises:
        DataError: If the tokenizer belongs to another model.
        ModelError: If it gives no character offsets.
    """
    rows = [row for row in _rows(model) if len(row) > 1]
    n = model.n_layers
    layers = range(n // 3, max(n // 3 + 1, 2 * n // 3))
    norms = [_norms(model, row, layers) for row in rows]
    return sinks_of(rows, norms)


def sinks_of(rows: Sequence[Sequence[int]], norms: Sequence[Float[Tensor, "layer pos"]]) -> Sinks:
    """Sinks of rows, from how long the residual of each token is.

    Args:
        rows: Token ids.
        norms: Of each row, at the layers that decide.
    """
    others = torch.cat([norm[:, 1:] for norm in norms], dim=1)
    middling = others.median(dim=1, keepdim=True).values.clamp_min(1e-12)
    once, later = set[int](), dict[int, list[bool]]()
    for row, norm in zip(rows, norms, strict=True):
        outlier = ((norm / middling).median(dim=0).values > RATIO).tolist()
        seen = {row[0]}
        for token, sink in zip(row[1:], outlier[1:], strict=True):
            if token in seen:
                later.setdefault(token, []).append(sink)
            elif sink:
                once.add(token)
            seen.add(token)
    always = {token for token, sinks in later.items() if sum(sinks) * 2 > len(sinks)}
    return Sinks(tuple(sorted(always)), tuple(sorted(once - always)))


def _rows(model: LanguageModel) -> list[list[int]]:
    """The fixed texts, a chat if the model knows chats, and its special tokens within a text."""
    from affectlens.models.chat.chats import encode

    tokenizer: Any = model.tokenizer
    texts = [[{"role": "text", "content": text}] for text in _TEXTS]
    rows = [list(encode(tokenizer, t, add_generation_prompt=False).ids) for t in texts]
    if getattr(tokenizer, "chat_template", None):
        # A template may refuse this chat; what is wrong with it is said when it is used.
        with suppress(DataError, ModelError):
            rows.append(list(encode(tokenizer, _CHAT, add_generation_prompt=False).ids))
    sentence = rows[0]
    half = len(sentence) // 2
    for token in list(dict.fromkeys(tokenizer.all_special_ids))[:_MOST_SPECIAL]:
        rows.append([*sentence[:half], int(token), *sentence[half:], int(token), *sentence[1:4]])
    return [row[: model.context_length] for row in rows]


def _norms(model: LanguageModel, row: Sequence[int], layers: range) -> Float[Tensor, "layer pos"]:
    found: dict[int, Tensor] = {}

    def read(site: Site, value: Tensor) -> None:
        found[site.layer] = torch.linalg.vector_norm(value[0].float(), dim=-1).cpu()

    ids, mask = model.encode_batch([row])
    sites = [Site(layer, "resid_post") for layer in layers]
    with reading(model.anatomy, sites, read, stop_after=sites[-1]):
        model.anatomy.base(input_ids=ids, attention_mask=mask, use_cache=False)
    return torch.stack([found[layer] for layer in layers])
