"""``LLM`` without a server: packs at runtime, beam search, chat."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from affectlens.core import DataError, UnknownNameError
from affectlens.serving.door import Conflict
from affectlens.serving.request_fields import Asked
from affectlens.serving.vllm.model_runners import prompt_length
from affectlens.serving.vllm.pack_management import load_pack, packs, unload_pack
from affectlens.serving.vllm.prefix_cache import block_key
from affectlens.steering.spec import POSITIONS
from tests_vllm.cases import FOLDER
from tests_vllm.engines import BLOCK, SETTINGS, ask, request, start
from tests_vllm.serving import pack

PROMPT = [5, 17, 33, 90, 12, 61, 44]
LONG = [5 + (7 * i) % 150 for i in range(2 * BLOCK + 3)]
STRONG = "anger=6;mode=circuit"


@pytest.fixture(scope="module")
def llm(own_caches: Any) -> Any:
    return start(settings=SETTINGS, enable_prompt_embeds=True)


def tokens(llm: Any, spec: str | None, name: str | None = None, new: int = 12) -> list[int]:
    extra = {} if name is None else {"affectlens_pack": name}
    return ask(llm, [request(PROMPT, spec, new, extra_args=extra)])[0].tokens


def test_a_pack_is_loaded_used_and_unloaded(llm: Any) -> None:
    wanted = tokens(llm, STRONG)
    with pytest.raises(ValueError, match="Unknown steering pack 'second'"):
        tokens(llm, STRONG, "second")
    load_pack(llm, "second", pack("second"))
    late = r"after block 1, but this request steers from block 0 \(o_proj_out\)"
    with pytest.raises(ValueError, match=late):
        tokens(llm, f"{STRONG};gate=anger>0.1", "second")
    other = tokens(llm, STRONG, "second")
    assert other not in (wanted, tokens(llm, None))
    assert [one["name"] for one in packs(llm)] == ["tiny", "second"]
    with pytest.raises(Conflict, match="no room"):
        load_pack(llm, "third", pack("second"))
    unload_pack(llm, "second")  # although the last step has left the worker with its request
    assert [one["name"] for one in packs(llm)] == ["tiny"]
    with pytest.raises(UnknownNameError, match="tiny"):
        unload_pack(llm, "second")
    with pytest.raises(ValueError, match="Unknown steering pack 'second'"):
        tokens(llm, STRONG, "second")
    assert tokens(llm, STRONG) == wanted
    # The prefix cache knows by content: under another name it is the same pack.
    load_pack(llm, "again", pack("second"))
    assert tokens(llm, STRONG, "again") == other
    unload_pack(llm, "again")


def test_a_pack_of_a_waiting_request_stays(llm: Any) -> None:
    from vllm import SamplingParams

    load_pack(llm, "second", pack("second"))
    extra = {"affectlens": STRONG, "affectlens_pack": "second"}
    params = SamplingParams(temperature=0, max_tokens=3, extra_args=extra)
    llm.llm_engine.add_request("waiting", {"prompt_token_ids": PROMPT}, params)
    with pytest.raises(Conflict, match="1 request under way"):
        unload_pack(llm, "second")
    while llm.llm_engine.has_unfinished_requests():
        llm.llm_engine.step()
    unload_pack(llm, "second")


def test_a_pack_the_workers_have_no_room_for_changes_nothing(llm: Any, tmp_path: Any) -> None:
    """The file changes between the look of the front end and that of the worker."""
    from affectlens.steering import SteeringPack

    file = tmp_path / "p.safetensors"
    SteeringPack.load(pack("second")).save(file)
    engine = llm.llm_engine
    call = engine.collective_rpc

    def swapped(method: Any, *args: Any, **kwargs: Any) -> Any:
        if method == "affectlens_load_pack":
            SteeringPack.load(pack("tiny")).save(file)
        return call(method, *args, **kwargs)

    engine.collective_rpc = swapped
    try:
        with pytest.raises(DataError, match="not the file the server has seen"):
            load_pack(llm, "second", file)
    finally:
        del engine.collective_rpc
    assert [one["name"] for one in packs(llm)] == ["tiny"]
    assert set(call("affectlens_state")[0]["packs"]) == {"tiny"}
    assert tokens(llm, None)


def test_without_packs_the_engine_says_so() -> None:
    from types import SimpleNamespace

    processor = SimpleNamespace(vllm_config=SimpleNamespace(additional_config={}))
    with pytest.raises(DataError, match="started without steering"):
        packs(SimpleNamespace(input_processor=processor))


@pytest.mark.parametrize("positions", ["generated", "last_prompt+generated", "prompt", "all"])
def test_a_beam_of_one_is_a_greedy_reply(llm: Any, positions: str) -> None:
    from vllm.sampling_params import BeamSearchParams

    spec = f"fear=6;positions={positions}"
    params = BeamSearchParams(beam_width=1, max_tokens=10, ignore_eos=True)
    prompt = [{"prompt_token_ids": PROMPT}]
    plain = llm.beam_search(prompt, params)[0].sequences[0].tokens
    assert plain[len(PROMPT) :] == tokens(llm, None, new=10)
    params.extra_args = {"affectlens": spec}
    steered = llm.beam_search(prompt, params)[0].sequences[0].tokens
    assert steered[len(PROMPT) :] == tokens(llm, spec, new=10)
    assert steered != plain


def test_beams_that_cannot_be_served_are_refused(llm: Any) -> None:
    from vllm.sampling_params import BeamSearchParams

    params = BeamSearchParams(beam_width=2, max_tokens=4)
    prompt = [{"prompt_token_ids": PROMPT}]
    params.extra_args = {"affectlens": "angr=1"}
    with pytest.raises(ValueError, match="Unknown emotion 'angr'"):
        llm.beam_search(prompt, params)
    params.extra_args = {"affectlens_read": True}
    with pytest.raises(ValueError, match="no readings"):
        llm.beam_search(prompt, params)
    assert tokens(llm, None)


def test_chat_is_steered(llm: Any) -> None:
    from vllm import SamplingParams

    def say(spec: str | None) -> str:
        extra = None if spec is None else {"affectlens": spec}
        params = SamplingParams(temperature=0, max_tokens=8, extra_args=extra)
        found = llm.chat([{"role": "user", "content": "my train"}], params, use_tqdm=False)
        return found[0].outputs[0].text

    assert say(STRONG) != say(None) == say("none")


def embedded(ids: list[int]) -> torch.Tensor:
    """A prompt as the model's own embeddings of its tokens."""
    tensors = load_file(FOLDER / "tiny" / "model.safetensors")
    return tensors["model.embed_tokens.weight"][ids].clone()


@pytest.mark.parametrize("positions", POSITIONS)
def test_prompts_that_come_as_embeddings(llm: Any, positions: str) -> None:
    """The same as their tokens, steered at the same positions; blocks are not mixed up."""
    from vllm import SamplingParams

    def replies(spec: str | None, prompts: list[Any]) -> list[list[int]]:
        extra = None if spec is None else {"affectlens": spec}
        params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, extra_args=extra)
        found = llm.generate(prompts, params, use_tqdm=False)
        return [list(one.outputs[0].token_ids) for one in found]

    texts = [[*LONG, token] for token in (9, 21, 30)]
    vectors = [{"prompt_embeds": embedded(ids)} for ids in texts]
    for spec in (f"fear=6;positions={positions}", f"anger=6;mode=circuit;positions={positions}"):
        wanted = replies(spec, [{"prompt_token_ids": ids} for ids in texts])
        assert replies(spec, vectors) == wanted
        assert replies(spec, vectors[::-1]) == wanted[::-1]  # now from the prefix cache
        plain = replies(None, vectors)
        assert plain == replies(None, [{"prompt_token_ids": ids} for ids in texts]) != wanted


def test_the_length_of_a_prompt_without_token_ids() -> None:
    """As vLLM's own classes count it, in the worker and in the keys of blocks."""
    from vllm import SamplingParams
    from vllm.v1.core.sched.output import NewRequestData
    from vllm.v1.request import Request

    for positions, first in (("generated", 11), ("last_prompt+generated", 10), ("all", 0)):
        asked = Asked("p", f"anger=1;mode=circuit;positions={positions}", False, "key", positions)
        params = SamplingParams(extra_args=asked.to_extra_args())
        request = Request("r", None, params, None, prompt_embeds=torch.zeros(11, 4))
        assert prompt_length(NewRequestData.from_request(request, ([],))) == 11
        keyed = [end for end in range(1, 20) if block_key(request, end) is not None]
        assert keyed == list(range(first + 1, 20))
        both = Request("r", list(range(11)), params, None, prompt_embeds=torch.zeros(11, 4))
        assert prompt_length(NewRequestData.from_request(both, ([],))) == 11
    ids = Request("r", list(range(5)), SamplingParams(), None)
    assert prompt_length(NewRequestData.from_request(ids, ([],))) == 5
