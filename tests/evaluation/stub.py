"""An HTTP server in a thread that answers as vLLM does, with a model of this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import torch

from affectlens.models.generation.generation import GenerationSettings
from affectlens.models.loading import LanguageModel
from affectlens.steering import SteeringPack
from affectlens.steering.hooking.steered_passes import generate_steered

Answer = tuple[int, Any]


@dataclass
class Stub:
    """Answers by path; anything else is 404.

    Attributes:
        model: What it serves.
        packs: By name.
        changed: Path to another answer than usual.
        bodies: Of the completions that were asked for.
    """

    model: LanguageModel
    packs: Mapping[str, SteeringPack]
    changed: dict[str, Callable[[Any], Answer]] = field(default_factory=dict)
    bodies: list[Any] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def answer(self, path: str, body: Any) -> Answer:
        if path in self.changed:
            return self.changed[path](body)
        match path:
            case "/v1/models":
                return 200, {"data": [{"id": "served"}]}
            case "/plugins/affectlens/packs":
                listed = [{"name": n, "fingerprint": p.fingerprint} for n, p in self.packs.items()]
                return 200, {"packs": listed}
            case "/v1/completions":
                with self.lock:
                    self.bodies.append(body)
                    return 200, {"choices": [self.choice(body)]}
            case _:
                return 404, {"detail": "Not Found"}

    def choice(self, body: Any) -> dict[str, Any]:
        prompt, asked = body["prompt"], body["vllm_xargs"]
        if "prompt_logprobs" in body:
            with torch.inference_mode():
                found = self.model.hf(torch.tensor([prompt])).logits[0].log_softmax(-1)
            rows = [{str(t): {"logprob": float(found[i, t])}} for i, t in enumerate(prompt[1:])]
            return {"token_ids": [1], "prompt_token_ids": prompt, "prompt_logprobs": [None, *rows]}
        settings = GenerationSettings(
            max_new_tokens=body["max_tokens"],
            min_new_tokens=body["min_tokens"],
            repetition_penalty=body["repetition_penalty"],
            temperature=body["temperature"],
        )
        pack = self.packs.get(asked.get("affectlens_pack", ""), next(iter(self.packs.values())))
        [ids] = generate_steered(self.model, pack, [prompt], [asked["affectlens"]], settings)
        # A server gives back the token that ended the reply.
        end = [body["stop_token_ids"][0]] if len(ids) < settings.max_new_tokens else []
        return {"token_ids": [*ids, *end], "prompt_token_ids": prompt}


@contextmanager
def serving(stub: Stub) -> Generator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            self.reply(json.loads(self.rfile.read(length)))

        def reply(self, body: Any) -> None:
            status, answer = stub.answer(self.path, body)
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    class Listening(ThreadingHTTPServer):
        request_queue_size = 128  # clients come all at once

    server = Listening(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
