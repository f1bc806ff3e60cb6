"""The inner loop of generation: one batch, from prefill to the last token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core import ModelError
from affectlens.models import step as stepping
from affectlens.models.generation.decoding import (
    GenerationSettings,
    NgramBan,
    likeliest,
    penalise_repetition,
    sample,
)
from affectlens.models.generation.listeners import Listener
from affectlens.models.generation.prompt_batches import Batch

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel


class Loop:
    """Generates the replies of one batch."""

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        batch: Batch,
        settings: GenerationSettings,
        heard: Sequence[Listener],
        noise: Float[Tensor, "row step"] | None,
    ) -> None:
        from affectlens.models.generation.kv_cache import growing_cache

        self.model = model
        self.settings = settings
        self.heard = heard
        self.rows = list(batch.rows)
        self.levels = batch.levels
        self.prompts = {row: tuple(prompts[row]) for row in self.rows}
        self.noise = noise[self.rows].to(model.device) if noise is not None else None
        width = max(len(ids) for ids in self.prompts.values())
        self.cache = growing_cache(model.hf, width + settings.max_new_tokens)
        self.mask = torch.empty(0)
        self.scores = torch.empty(0)  # one buffer for all steps: fresh memory costs page faults
        # Tokens of prompt and reply, for the penalty; padding repeats a token the row holds anyway.
        self.seen = torch.empty(
            (len(self.rows), width + settings.max_new_tokens), dtype=torch.long, device="cpu"
        )
        for i, row in enumerate(self.rows):
            ids = self.prompts[row]
            self.seen[i, : width - len(ids)] = ids[0]
            self.seen[i, width - len(ids) : width] = torch.tensor(ids)
        self.seen = self.seen.to(model.device)
        self.sound = torch.empty(0)  # of each row, whether the last logits are finite
        self.width = width
        size = settings.no_repeat_ngram
        texts = [self.prompts[row] for row in self.rows]
        self.bans = NgramBan(texts, size) if size else None
        self.eos = torch.tensor(model.eos_ids, device=model.device, dtype=torch.long)

    def run(self) -> list[list[int]]:
        """Replies of the rows, in the batch's order."""
        settings = self.settings
        replies: list[list[int]] = [[] for _ in self.rows]
        active = list(range(len(self.rows)))  # what each row of the tensors is in the batch
        ended = torch.zeros(len(active), dtype=torch.bool, device=self.model.device)
        logits = self._prefill()
        for step in range(settings.max_new_tokens):
            token = self._choose(logits, step, active)
            ended = ended | torch.isin(token, self.eos)
            # One copy from the device a step.
            tokens, ends, sound = torch.stack([token, ended.long(), self.sound.long()]).tolist()
            self._require_finite(sound, active)
            flags = [bool(end) for end in ends]
            for i, value, stop in zip(active, tokens, flags, strict=True):
                if not stop:
                    replies[i].append(value)
                    if self.bans is not None:
                        self.bans.append(i, value)
            remaining = settings.max_new_tokens - step - 1
            finished = sum(flags)
            if remaining == 0 or finished == len(active):
                break
            self.seen[:, self.width + step] = token
            if finished * remaining >= len(active):  # dropping rows costs about one step
                kept = [i for i, stop in enumerate(flags) if not stop]
                keep = torch.tensor(kept, device=token.device)
                active = [active[i] for i in kept]
                token, ended = token[keep], ended[keep]
                self._keep(keep)
                self._announce([self.rows[i] for i in active])
                self.seen = self.seen[keep]
                self.noise = self.noise[keep] if self.noise is not None else None
            ones = self.mask.new_ones((len(active), 1))
            self.mask = torch.cat([self.mask, ones], dim=1)
            logits = self._forward(token[:, None])
        return replies

    def _prefill(self) -> Float[Tensor, "batch vocab"]:
        """Run the prompts, level by level."""
        logits = torch.empty(0)
        before = 0
        for level in self.levels:
            if before and level.parents != tuple(range(before)):
                index = torch.tensor(level.parents, device=self.model.device)
                self._keep(index)
                logits = logits[index]
            self._announce(level.rows)
            if any(level.tokens):
                ids, mask = self.model.encode_batch(level.tokens, "left")
                self.mask = torch.cat([self.mask, mask], dim=1) if before else mask
                logits = self._forward(ids)
            before = len(level.rows)
        return logits

    def _keep(self, index: Int[Tensor, " batch"]) -> None:
        """Drop or repeat rows of cache and mask."""
        self.cache.batch_select_indices(index)
        self.mask = self.mask[index]

    def _announce(self, rows: Sequence[int]) -> None:
        for one in self.heard:
            one.announce(rows, [len(self.prompts[row]) for row in rows])

    def _forward(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch vocab"]:
        return stepping.step(self.model.hf, ids, self.mask, self.cache)

    def _choose(
        self, logits: Float[Tensor, "batch vocab"], step: int, active: Sequence[int]
    ) -> Int[Tensor, " batch"]:
        """Next token of every row."""
        settings = self.settings
        if len(self.scores) == 0:
            self.scores = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
        scores = self.scores[: len(active)].copy_(logits)
        self.sound = scores.amax(-1).isfinite()
        penalise_repetition(scores, self.seen[:, : self.width + step], settings.repetition_penalty)
        if self.bans is not None:
            for i, row in enumerate(active):
                scores[i, self.bans.banned(row)] = -torch.inf
        if step < settings.min_new_tokens:
            scores[:, self.eos] = -torch.inf
        if self.noise is None:
            return likeliest(scores)
        return sample(scores, self.noise[:, step], settings.temperature, settings.top_p)

    def _require_finite(self, sound: Sequence[int], active: Sequence[int]) -> None:
        if not all(sound):
            row = self.rows[active[sound.index(0)]]
            raise ModelError(
                f"The logits of prompt {row} are not finite; if the model is steered, lower the "
                "strength, else load it as float32."
            )
