"""Live readings: what the packs' probes say while a reply is written, sent along with it.

A reading belongs to a generated token and is taken where that token was chosen: after the chosen
blocks, at the token before it. Workers hang the scores of a step on vLLM's output of that step, the
scheduler passes them on per request in ``kv_transfer_params`` (the one free field of its outputs),
and the front end turns them into probabilities.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from affectlens.serving.contract import KEY
from affectlens.serving.readings import Columns
from affectlens.serving.reply_readings import Reply, joined

ATTRIBUTE = "_affectlens_scores"
"""Of vLLM's output of a step: request id to classes, layers and scores."""


@dataclass(frozen=True, eq=False)
class Pending:
    """Scores of one step that are still on the device.

    Attributes:
        requests: Whose.
        columns: Which of the stacked classes are each request's.
        layers: Blocks that this worker reads, in the order of the scores.
        scores: At the last token of each request.
    """

    requests: tuple[str, ...]
    columns: tuple[Columns, ...]
    layers: tuple[int, ...]
    scores: Float[Tensor, "layer request label"]

    def hang_on(self, output: Any) -> Any:
        """Put the scores on an output of the runner, which may not be there yet."""
        if output is None:
            return None
        if not hasattr(output, "get_output"):
            return self._put(output)
        get = output.get_output

        @functools.wraps(get)
        def get_output() -> Any:
            return self._put(get())

        output.get_output = get_output
        return output

    def _put(self, output: Any) -> Any:
        values = self.scores.cpu()
        found: dict[str, dict[str, Any]] = {}
        for i, request in enumerate(self.requests):
            at = getattr(output, "req_id_to_index", {}).get(request)
            if at is None or not (output.sampled_token_ids and output.sampled_token_ids[at]):
                continue  # a chunk of a prompt
            mine = self.columns[i]
            rows = [self.layers.index(layer) for layer in mine.layers]
            where = slice(mine.first, mine.first + len(mine.classes))
            found[request] = {
                "classes": list(mine.classes),
                "layers": list(mine.layers),
                "scores": values[rows, i, where].tolist(),
            }
        setattr(output, ATTRIBUTE, found)
        return output


def pass_on(update: Any) -> Any:
    """Wrapper of the scheduler's ``update_from_output``."""

    @functools.wraps(update)
    def update_from_output(self: Any, scheduler_output: Any, output: Any) -> Any:
        result = update(self, scheduler_output, output)
        scores: Mapping[str, Any] = getattr(output, ATTRIBUTE, None) or {}
        if scores:
            for batch in result.values():
                for one in batch.outputs:
                    if one.request_id in scores and one.new_token_ids:
                        known = one.kv_transfer_params or {}
                        one.kv_transfer_params = {**known, KEY: scores[one.request_id]}
        return result

    return update_from_output


def report_outputs(process: Any) -> Any:
    """Wrapper of the front end's ``process_outputs``: scores become reports."""

    @functools.wraps(process)
    def process_outputs(self: Any, outputs: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        replies: dict[str, Reply] = vars(self).setdefault("_affectlens_replies", {})
        for output in outputs:
            read = (output.kv_transfer_params or {}).get(KEY)
            state = self.request_states.get(output.request_id)
            if read is None or state is None:  # nobody asked, or cancelled
                continue
            reply = replies.setdefault(
                output.request_id, Reply(tuple(read["classes"]), tuple(read["layers"]))
            )
            reply.tokens.append(read["scores"])
            kind = getattr(state.output_kind, "name", "")
            if kind == "FINAL_ONLY" and output.finish_reason is None:
                continue  # nobody sees this one
            report = reply.report(len(reply.tokens) - 1 if kind == "DELTA" else 0)
            output.kv_transfer_params = {**output.kv_transfer_params, KEY: report}
        result = process(self, outputs, *args, **kwargs)
        for request in [r for r in replies if r not in self.request_states]:
            del replies[request]
        return result

    return process_outputs


def merge(add: Any) -> Any:
    """Wrapper of ``RequestOutput.add``: deltas that are merged keep all their tokens."""

    @functools.wraps(add)
    def add_output(self: Any, next_output: Any, aggregate: bool) -> Any:
        before = (self.kv_transfer_params or {}).get(KEY)
        result = add(self, next_output, aggregate)
        if before and aggregate:
            self.kv_transfer_params = {
                **(self.kv_transfer_params or {}),
                KEY: joined(before, (self.kv_transfer_params or {}).get(KEY)),
            }
        return result

    return add_output
