"""A vLLM server with the plug-in, asked over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import DataError, MismatchError
from affectlens.evaluation.backends.base import Advance, Ids
from affectlens.serving.checking import Answer, Server
from affectlens.serving.contract import KEY, PACKS_ROUTE
from affectlens.serving.request_fields import PACK

if TYPE_CHECKING:
    from affectlens.models import LanguageModel
    from affectlens.models.generation.generation import GenerationSettings
    from affectlens.steering import SteeringPack

CONCURRENT = 64
"""Requests under way at once; a server makes its batches of them."""

TIMEOUT = 1800.0
"""Seconds for one reply; requests may wait in the server's queue."""

TOLERANCE = 0.5
"""Nats per token by which a server's model may differ from ours: enough for number formats."""


@dataclass(frozen=True, eq=False)
class Vllm:
    """A vLLM server with the plug-in. Nothing of vLLM is imported here.

    Attributes:
        server: Where it is.
        served: What it calls its model.
        names: Fingerprint of a pack to what the server calls it.
        stops: Tokens that end a reply.
    """

    server: Server
    served: str
    names: Mapping[str, str]
    stops: Ids

    @classmethod
    def connect(
        cls, server: Server, model: LanguageModel, packs: Mapping[Path, SteeringPack]
    ) -> Vllm:
        """Make sure that a server has the model and the packs.

        Args:
            server: Where it is.
            model: What it must serve.
            packs: File to pack: what it must steer with.

        Raises:
            DataError: If nothing answers, or not a vLLM server with our plug-in.
            MismatchError: If it serves another model or lacks a pack.
        """
        for pack in packs.values():
            pack.require_model(model)
        served = _served(server)
        listed = server.ask(PACKS_ROUTE)
        if listed.status == 404:
            raise DataError(
                f"The server at {server.url} has no {PACKS_ROUTE}: it runs without AffectLens' "
                f"plug-in; start it with: {_command(packs)}"
            )
        have = _checked(server, listed)["packs"]
        names = {str(one["fingerprint"]): str(one["name"]) for one in have}
        for file, pack in packs.items():
            if pack.fingerprint not in names:
                raise MismatchError(
                    f"The server at {server.url} has "
                    f"{', '.join(f'{name} ({f})' for f, name in names.items()) or 'no packs'}, not "
                    f"the pack in {file} ({pack.fingerprint}); start it with: {_command(packs)}"
                )
        return cls(server, served, names, model.eos_ids)

    def require_model(self, model: LanguageModel, prompt: Ids) -> None:
        """Refuse a server whose model gives a prompt other probabilities than ours.

        Raises:
            MismatchError: Naming both, and the mean difference.
        """
        body = {**self._body(prompt), "max_tokens": 1, "prompt_logprobs": 0}
        choice = _checked(self.server, self.server.ask("/v1/completions", body))["choices"][0]
        # The first token has no probability; the others come as {"<id>": {"logprob": ...}}.
        theirs = [
            float(entry[str(token)]["logprob"]) if str(token) in entry else float("-inf")
            for token, entry in zip(prompt[1:], choice["prompt_logprobs"][1:], strict=True)
        ]
        ours = _logprobs(model, prompt)
        apart = sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours)
        if not apart <= TOLERANCE:
            raise MismatchError(
                f"The server at {self.server.url} serves {self.served}, which is another model "
                f"than {model.name}: its log-probabilities of a prompt differ by {apart:.2f} per "
                f"token. Serve {model.name}, or name the server's model with --model."
            )

    def generate(
        self,
        prompts: Sequence[Ids],
        specs: Sequence[Any],
        pack: SteeringPack | None,
        settings: GenerationSettings,
        advance: Advance,
    ) -> list[Ids]:
        """See `Backend.generate`.

        Raises:
            DataError: If vLLM lacks a setting, or the server refuses a request or goes away.
        """
        name = None if pack is None else self._name(pack)
        bodies = [
            {
                **self._body(prompt),
                **_sampling(settings, row),
                "vllm_xargs": _xargs(pack, name, spec),
            }
            for row, (prompt, spec) in enumerate(zip(prompts, specs, strict=True))
        ]
        replies: list[Ids] = [()] * len(bodies)
        with ThreadPoolExecutor(CONCURRENT, "vllm-client") as pool:
            rows = {pool.submit(self._complete, body): row for row, body in enumerate(bodies)}
            try:
                for done in as_completed(rows):
                    replies[rows[done]] = done.result()
                    advance(1)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return replies

    def _name(self, pack: SteeringPack) -> str:
        if pack.fingerprint not in self.names:
            raise MismatchError(
                f"The server at {self.server.url} has no pack {pack.fingerprint}; name its file "
                "when it is started."
            )
        return self.names[pack.fingerprint]

    def _body(self, prompt: Ids) -> dict[str, Any]:
        """Of a request that is not steered, whatever the server does by default."""
        return {
            "model": self.served,
            "prompt": list(prompt),
            "temperature": 0.0,
            "stop_token_ids": list(self.stops),
            "return_token_ids": True,
            "vllm_xargs": _xargs(None, None, None),
        }

    def _complete(self, body: Mapping[str, Any]) -> Ids:
        answer = self.server.ask("/v1/completions", body)
        choice = _checked(self.server, answer)["choices"][0]
        if choice.get("token_ids") is None or choice.get("prompt_token_ids") != body["prompt"]:
            raise DataError(
                f"The server at {self.server.url} does not give back the tokens it was asked for; "
                "what stands between it and us must pass return_token_ids on."
            )
        ids: list[int] = choice["token_ids"]
        return tuple(ids[:-1] if ids and ids[-1] in self.stops else ids)


def _served(server: Server) -> str:
    models = _checked(server, server.ask("/v1/models"))
    try:
        return str(models["data"][0]["id"])
    except (LookupError, TypeError):
        raise DataError(f"{server.url} serves no model; is it a vLLM server?") from None


def _checked(server: Server, answer: Answer) -> Any:
    """The body of an answer.

    Raises:
        DataError: If it is an error, or no JSON.
    """
    if answer.status == 401:
        raise DataError(f"The server at {server.url} wants an API key; set VLLM_API_KEY.")
    if answer.status != 200:
        raise DataError(f"The server at {server.url} refuses a request: {answer.sentence}")
    if not isinstance(answer.body, Mapping):
        raise DataError(f"{server.url} does not answer in JSON; is it a vLLM server?")
    return answer.body


def _sampling(settings: GenerationSettings, row: int) -> dict[str, Any]:
    """Our settings in vLLM's words; what it might add by default is switched off by name."""
    if settings.no_repeat_ngram:
        raise DataError(
            "vLLM cannot forbid repeated n-grams; set no_repeat_ngram to 0, or use the "
            "transformers backend."
        )
    return {
        "max_tokens": settings.max_new_tokens,
        "min_tokens": settings.min_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "repetition_penalty": settings.repetition_penalty,
        "top_k": 0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": settings.seed + row,
    }


def _xargs(pack: SteeringPack | None, name: str | None, spec: Any) -> dict[str, str]:
    if pack is None or name is None:
        return {KEY: "none"}
    return {KEY: str(pack.resolve(spec)), PACK: name}


def _logprobs(model: LanguageModel, ids: Ids) -> list[float]:
    """Log-probabilities of all tokens but the first."""
    import torch

    with torch.inference_mode():
        rows, _ = model.encode_batch([ids])
        logits = model.hf(input_ids=rows).logits[0, :-1].float().log_softmax(-1)
        return logits.gather(-1, rows[0, 1:, None])[:, 0].tolist()


def _command(packs: Mapping[Path, SteeringPack]) -> str:
    return " ".join(["affectlens serve", *(f"--pack {file}" for file in packs)])
