"""Where padding may lie without changing what a row computes: found out on the model's own numbers.

Most families see positions through ids and a mask, and padding is nothing to them. Some count
columns: ALiBi from the places of keys, windows of local attention, rotary factors chosen by the
longest row of a batch. Which rows run together must not depend on a list of names, so a short row
is run alone and in each way that batches are made, and the logits are compared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core.errors import ModelError
from affectlens.models.generation.attention import fast_decoding
from affectlens.models.hooking.shared_weights import same_weights
from affectlens.models.placement import device_of
from affectlens.models.step import accepted, cached, position_ids, step

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Relative error of logits that is put down to rounding, by number format.

In 16-bit formats it is 0.05, or twice what running the row in several calls does without padding.
"""

_FIRST, _REST, _PADS = 6, 5, 3


@dataclass(frozen=True)
class Padding:
    """What leaves the logits of a row as they are when it runs alone.

    Attributes:
        left: Padding before it, and longer rows beside it.
        right: Padding after it, and longer rows beside it.
        between: Padding between its beginning, which is cached, and the rest.
        chunks: Running it in several calls with a cache.
    """

    left: bool = True
    right: bool = True
    between: bool = True
    chunks: bool = True


class PaddingCheck:
    """Finds `Padding` out when it is first needed, by the number of columns that batches have.

    Windows and rotary factors matter from some length on, so a check holds up to the length that it
    was made with.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._known: dict[int, Padding] = {}

    def upto(self, columns: int) -> Padding:
        """What holds in batches of up to so many columns, the cache and new tokens included."""
        size = 32
        while size < columns:
            size *= 2
        size = min(size, self._model.context_length)
        if size not in self._known:
            self._known[size] = _check(self._model, size)
        return self._known[size]


@torch.inference_mode()
def _check(model: LanguageModel, columns: int) -> Padding:
    if columns < _FIRST + _REST + _PADS:
        return Padding(left=False, right=False, between=False, chunks=False)
    hf = same_weights(model.hf, hooks=False)  # what steers or reads now has no say
    row = _row(model)
    probe = _Probe(hf, row, columns)
    with fast_decoding(hf):
        apart = _tried(probe.far_apart)
        far = None if apart is None else probe.far_alone()
        # Short passes come last: rotary tables that grow with long ones are back where they were.
        found = {
            "right": probe.padded_right(masked=True),
            "left": _tried(probe.padded_left),
            "between": _tried(lambda: probe.in_chunks(columns - len(row))),
            "chunks": _tried(lambda: probe.in_chunks(0)),
        }
        if model.anatomy.causal:  # then capture leaves the mask away
            found["unmasked"] = probe.padded_right(masked=False)
        alone = probe.alone()
    errors = {
        name: float("inf") if value is None else _error(value, alone[-len(value) :])
        for name, value in found.items()
    }
    errors["apart"] = float("inf")
    if apart is not None and far is not None:
        errors["apart"] = _error(apart, far[-len(apart) :])
    bound = TOLERANCE.get(alone.dtype, max(0.05, 2 * min(errors["chunks"], 0.1)))
    fine = {name: error <= bound for name, error in errors.items()}
    if not all(fine.values()):
        logger.info("Padding changes what %s computes: %s.", model.name, errors)
    return Padding(
        left=fine["left"],
        right=fine["right"] and fine.get("unmasked", True),
        between=fine["between"] and fine["chunks"] and fine["apart"],
        chunks=fine["chunks"] and fine["apart"],
    )


def _tried(probe: Callable[[], Tensor]) -> Tensor | None:
    """What a pass with a cache gives; None if the model cannot run it.

    Some take no cache (RWKV), some not several tokens at once beside what it holds (Mamba).
    """
    try:
        return probe()
    except (ModelError, ValueError, RuntimeError):
        return None


def _row(model: LanguageModel) -> list[int]:
    """Some tokens, all different where the vocabulary allows it, none of them padding."""
    embedding: Any = model.hf.get_input_embeddings()
    vocab, pad = int(embedding.weight.shape[0]), model.pad_id
    ids = ((5 + 7 * i) % vocab for i in range(vocab))
    return list(islice((i for i in ids if i != pad), _FIRST + _REST))


class _Probe:
    """One row in several surroundings; results are logits of its last tokens, ``[n, vocab]``."""

    def __init__(self, hf: Any, row: list[int], columns: int) -> None:
        self.hf = hf
        device = device_of(hf.get_input_embeddings())
        self.row = torch.tensor([row], device=device)
        self.columns = columns

    def alone(self) -> Float[Tensor, "token vocab"]:
        """All at once, without a cache."""
        output = self.hf(
            input_ids=self.row, attention_mask=torch.ones_like(self.row), use_cache=False
        )
        return output.logits[0]

    def padded_right(self, *, masked: bool) -> Float[Tensor, "token vocab"]:
        """Beside a longer row that ends in the last column, without a cache."""
        ids, mask = self._beside(torch.nn.functional.pad(self.row, (0, _PADS)), "right")
        options = {"attention_mask": mask} if masked else {}
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        options |= accepted(self.hf, position_ids=self._far(places))
        output = self.hf(input_ids=ids, use_cache=False, **options)
        return output.logits[0, : self.row.shape[1]]

    def padded_left(self) -> Float[Tensor, "token vocab"]:
        """Beside a longer row, all but the last token and then that, as in generation."""
        ids, mask = self._beside(torch.nn.functional.pad(self.row, (_PADS, 0)), "left")
        from affectlens.models.generation.kv_cache import growing_cache

        cache = growing_cache(self.hf, ids.shape[1])
        places = self._far(position_ids(mask))
        logits: list[Tensor] = []
        start = 0
        for end in (ids.shape[1] - 1, ids.shape[1]):
            options = accepted(self.hf, position_ids=places[:, start:end], logits_to_keep=1)
            output = self.hf(
                input_ids=ids[:, start:end],
                attention_mask=mask[:, :end],
                use_cache=True,
                **options,
                **cached(self.hf, cache),
            )
            logits.append(output.logits[0, -1])
            start = end
        return torch.stack(logits)

    def in_chunks(self, between: int) -> Float[Tensor, "token vocab"]:
        """First tokens, masked columns, and the rest at once.

        The columns are written to the cache as zeros, so that thousands cost nothing to run.
        """
        from affectlens.models.generation.kv_cache import growing_cache

        cache = growing_cache(self.hf, self.row.shape[1] + between)
        mask = torch.ones_like(self.row[:, :_FIRST])
        step(self.hf, self.row[:, :_FIRST], mask, cache)
        if between > 0:
            layers: list[Any] = list(cache.layers)
            for layer in layers:
                pair: tuple[Any, Any] = getattr(layer, "keys", None), getattr(layer, "values", None)
                if all(isinstance(old, Tensor) for old in pair):
                    layer.update(*(_zeros(old, between) for old in pair))
            mask = torch.nn.functional.pad(mask, (0, between))
        mask = torch.nn.functional.pad(mask, (0, _REST), value=1)
        return step(self.hf, self.row[:, _FIRST:], mask, cache)

    def far_alone(self) -> Float[Tensor, "token vocab"]:
        """All at once, the last tokens as far away as there are columns."""
        output = self.hf(
            input_ids=self.row,
            attention_mask=torch.ones_like(self.row),
            use_cache=False,
            **accepted(self.hf, position_ids=self._apart()),
        )
        return output.logits[0]

    def far_apart(self) -> Float[Tensor, "token vocab"]:
        """The same, the first tokens before the others are known: rotary factors that depend on
        how long a text is are then those of a short one."""
        from affectlens.models.generation.kv_cache import growing_cache

        cache, places = growing_cache(self.hf, self.row.shape[1]), self._apart()
        logits: list[Tensor] = []
        for part in (slice(0, _FIRST), slice(_FIRST, None)):
            end = self.row[:, part].shape[1] + (part.start or 0)
            output = self.hf(
                input_ids=self.row[:, part],
                attention_mask=torch.ones_like(self.row[:, :end]),
                use_cache=True,
                **accepted(self.hf, position_ids=places[:, part]),
                **cached(self.hf, cache),
            )
            logits.append(output.logits[0])
        return logits[-1]

    def _apart(self) -> Int[Tensor, "1 pos"]:
        places = torch.arange(self.row.shape[1], device=self.row.device)[None]
        places[:, _FIRST:] += self.columns - self.row.shape[1]
        return places

    def _beside(
        self, padded: Int[Tensor, "1 pos"], side: str
    ) -> tuple[Int[Tensor, "2 pos"], Int[Tensor, "2 pos"]]:
        """The padded row, a full one below it, and their mask."""
        mask = torch.ones_like(padded).expand(2, -1).clone()
        mask[0, : _PADS if side == "left" else 0] = 0
        mask[0, padded.shape[1] - (_PADS if side == "right" else 0) :] = 0
        full = torch.cat([self.row.flip(1), self.row], dim=1)[:, : padded.shape[1]]
        return torch.cat([padded, full]), mask

    def _far(self, places: Int[Tensor, "2 pos"]) -> Int[Tensor, "2 pos"]:
        """Positions of both rows, the second one's moved so that it ends in the last column."""
        moved = places.clone()
        moved[1] += self.columns - 1 - int(places[1].max())
        return moved


def _zeros(old: Tensor, columns: int) -> Tensor:
    return old.new_zeros(*old.shape[:2], columns, old.shape[-1])


def _error(value: Tensor, wanted: Tensor) -> float:
    value, wanted = (x.float() - x.float().mean(-1, keepdim=True) for x in (value, wanted))
    error = float((value - wanted).norm() / wanted.norm().clamp_min(1e-12))
    return error if error == error else float("inf")  # NaN is no agreement
