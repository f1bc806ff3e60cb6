"""Every way in which Transformers decodes, against hooks that add a vector from a column on."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from affectlens.core import DataError
from affectlens.models.loading import LanguageModel
from affectlens.steering import SteeringSpec
from tests.conftest import tiny_hf
from tests.steering.oracle import random_pack

NEW = 9
PROMPT = [5, 17, 33, 90, 12, 61, 33, 90, 12, 61, 7, 33, 90]  # repeats itself, for prompt lookup
SHORT = [101, 102, 103]

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "no cache": {"use_cache": False},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "static cache": {"cache_implementation": "static"},
    "chunks of the prompt": {"prefill_chunk_size": 4},
    "static cache in chunks": {"prefill_chunk_size": 5, "cache_implementation": "static"},
    "sampled": {"do_sample": True, "temperature": 1.5, "seed": 3},
    "several samples": {"do_sample": True, "num_return_sequences": 3, "seed": 4},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "beams without a cache": {"num_beams": 3, "use_cache": False},
    "sampled beams": {"num_beams": 2, "do_sample": True, "seed": 5},
    "embeddings": {"embed": True},
    "embeddings in a static cache": {"embed": True, "cache_implementation": "static"},
}
BATCHED = [name for name in WAYS if name != "prompt lookup"]
REFERENCE = ("num_beams", "num_return_sequences", "do_sample", "temperature", "seed")


def spec(positions: str) -> SteeringSpec:
    return SteeringSpec({"anger": 2.0}, mode="residual", positions=positions, unit="natural")


def first_column(positions: str, columns: int) -> int:
    return {"all": 0, "generated": columns, "last_prompt+generated": columns - 1}[positions]


@contextmanager
def added(model: LanguageModel, start: int) -> Generator[None, None, None]:
    """The pack's anger in the columns from ``start`` on; for calls that pass everything anew."""
    pack = random_pack(model)
    name, handles = "residual.resid_post", list[Any]()
    for i, layer in enumerate(pack.layers[name]):
        delta = 2.0 * pack.vectors[name][pack.emotions.index("anger"), i]

        def hook(_m: Any, _a: Any, output: Any, delta: torch.Tensor = delta) -> Any:
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            hidden[:, start:] += delta
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handles.append(model.anatomy.blocks[layer].block.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def generate(
    model: LanguageModel, rows: list[list[int]], *, seed: int = 0, embed: bool = False, **way: Any
) -> list[list[int]]:
    ids, mask = model.encode_batch(rows, "left")
    torch.manual_seed(seed)
    given = {"inputs_embeds": model.hf.get_input_embeddings()(ids)} if embed else {"input_ids": ids}
    with torch.no_grad():
        hf: Any = model.hf
        out = hf.generate(
            **given,
            attention_mask=mask,
            max_new_tokens=NEW,
            pad_token_id=0,
            eos_token_id=None,
            **{"do_sample": False, **way},
        )
    return out[:, 0 if embed else ids.shape[1] :].tolist()


def wanted(model: LanguageModel, rows: list[list[int]], positions: str, way: Any) -> Any:
    way = {name: value for name, value in way.items() if name in REFERENCE}
    start = first_column(positions, max(map(len, rows)))
    with added(model, start):
        steered = generate(model, rows, use_cache=False, **way)
    assert steered != generate(model, rows, use_cache=False, **way)
    return steered


@pytest.mark.parametrize("positions", ["last_prompt+generated", "generated", "all"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_prompt(tiny_model: Any, family: str, positions: str) -> None:
    model = tiny_model(family)
    pack = random_pack(model)
    for name, way in WAYS.items():
        with pack.steer(model, spec(positions)):
            got = generate(model, [PROMPT], **way)
        assert got == wanted(model, [PROMPT], positions, way), name


@pytest.mark.parametrize("positions", ["last_prompt+generated", "generated"])
def test_padded_batches(tiny_model: Any, positions: str) -> None:
    model = tiny_model("llama")
    pack = random_pack(model)
    rows = [SHORT, PROMPT]
    for name in BATCHED:
        with pack.steer(model, spec(positions)):
            got = generate(model, rows, **WAYS[name])
        assert got == wanted(model, rows, positions, WAYS[name]), name


@pytest.mark.parametrize("positions", ["last_prompt+generated", "generated"])
def test_drafts_of_another_model_and_of_its_own(
    tiny_model: Any, positions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drafting model stays unsteered, unless it is the model itself; the text is the same."""
    model = tiny_model("llama")
    pack = random_pack(model)
    other = tiny_hf("llama", seed=5)
    greedy = wanted(model, [PROMPT], positions, {})
    logits = other(input_ids=torch.tensor([PROMPT])).logits
    with pack.steer(model, spec(positions)):
        assert torch.equal(other(input_ids=torch.tensor([PROMPT])).logits, logits)
        assert generate(model, [PROMPT], assistant_model=other) == greedy
    config = model.hf.generation_config
    for name, value in (
        ("num_assistant_tokens", 4),
        ("num_assistant_tokens_schedule", "constant"),
        ("assistant_confidence_threshold", 0.0),
    ):
        monkeypatch.setattr(config, name, value)
    passes = list[int]()
    handle = model.hf.register_forward_hook(lambda *_: passes.append(1))
    try:
        generate(model, [PROMPT], assistant_model=model.hf)
        unsteered = len(passes)
        with pack.steer(model, spec(positions)):
            assert generate(model, [PROMPT], assistant_model=model.hf) == greedy
    finally:
        handle.remove()
    # Steered like the model it drafts for, it drafts nothing that is not taken.
    assert len(passes) == 2 * unsteered


def test_guidance_runs_a_text_of_its_own(tiny_model: Any) -> None:
    """The text without the prompt begins at the prompt's last token, and is steered from there."""
    model = tiny_model("llama")
    pack = random_pack(model)
    for use_cache in (True, False):
        with pack.steer(model, spec("last_prompt+generated")):
            got = generate(model, [PROMPT], guidance_scale=1.7, use_cache=use_cache)
        handles = list[Any]()
        name = "residual.resid_post"
        for i, layer in enumerate(pack.layers[name]):
            delta = 2.0 * pack.vectors[name][0, i]

            def hook(_m: Any, _a: Any, output: Any, delta: torch.Tensor = delta) -> Any:
                whole = output.shape[1] >= len(PROMPT)
                output = output.clone()
                output[:, len(PROMPT) - 1 if whole else 0 :] += delta
                return output

            handles.append(model.anatomy.blocks[layer].block.register_forward_hook(hook))
        reference = generate(model, [PROMPT], guidance_scale=1.7, use_cache=False)
        for handle in handles:
            handle.remove()
        assert got == reference


@pytest.mark.parametrize("positions", ["last_prompt+generated", "generated"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_later_turn_on_the_cache_of_an_earlier_one(
    tiny_model: Any, positions: str, whole: bool
) -> None:
    """With all tokens so far, or only the new ones and the mask of all."""
    from transformers import DynamicCache

    model = tiny_model("llama")
    pack = random_pack(model)
    reference = wanted(model, [PROMPT], positions, {})
    cache = DynamicCache(config=model.hf.config)
    with torch.no_grad():
        model.hf(input_ids=torch.tensor([PROMPT[:8]]), past_key_values=cache, use_cache=True)
    ids = torch.tensor([PROMPT])
    with pack.steer(model, spec(positions)):
        out = model.hf.generate(
            input_ids=ids if whole else ids[:, 8:],
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )
    assert out[:, -NEW:].tolist() == reference


def test_requests_keep_to_their_prompts(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = random_pack(model)
    rows = [PROMPT, PROMPT[::-1]]
    for name in ("greedy", "beams without a cache", "static cache", "chunks of the prompt"):
        with pack.steer(model, [None, spec("generated")]):
            got = generate(model, rows, **WAYS[name])
        per = len(got) // 2
        way = WAYS[name]
        plain = {key: value for key, value in way.items() if key in REFERENCE}
        assert got[:per] == generate(model, rows[:1], use_cache=False, **plain), name
        assert got[per:] == wanted(model, rows[1:], "generated", way), name


def test_pipelines_are_steered(tiny_model: Any) -> None:
    from transformers import pipeline

    model = tiny_model("llama")
    pack = random_pack(model)
    say = pipeline("text-generation", model=model.hf, tokenizer=model.tokenizer)  # before the block
    text = "The train was cancelled."
    ids = model.tokenizer(text)["input_ids"]
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with pack.steer(model, spec("generated")):
        got = say(text, return_tensors=True, prompt_lookup_num_tokens=2, **options)
    assert got[0]["generated_token_ids"][len(ids) :] == wanted(model, [ids], "generated", {})[0]


def test_generate_looked_up_before_the_block_is_refused(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = random_pack(model)
    early = model.hf.generate
    ids = torch.tensor([PROMPT])
    with (
        pack.steer(model, spec("generated")),
        pytest.raises(DataError, match="looked up before the steering block"),
    ):
        early(input_ids=ids, max_new_tokens=2)
    with pack.steer(model, spec("generated")):
        inside = model.hf.generate
    assert inside is not model.hf.generate
    assert "generate" not in vars(model.hf)
    plain = generate(model, [PROMPT])
    out = inside(
        input_ids=ids, max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert out[:, len(PROMPT) :].tolist() == plain  # the block is over


def test_a_generate_of_the_users_own_stays(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    pack = random_pack(model)
    plain, called = model.hf.generate, list[int]()

    def own(*args: Any, **kwargs: Any) -> Any:
        called.append(1)
        return plain(*args, **kwargs)

    model.hf.generate = own
    try:
        with pack.steer(model, spec("generated")):
            got = generate(model, [PROMPT], prompt_lookup_num_tokens=3)
        assert model.hf.generate is own
    finally:
        del model.hf.generate
    assert got == wanted(model, [PROMPT], "generated", {})
    assert called == [1]


def test_two_conversations_by_hand_do_not_mix(tiny_model: Any) -> None:
    """Plain calls of two batches of unlike size, in turn, each with its own cache."""
    model = tiny_model("llama")
    pack = random_pack(model)
    texts = ([PROMPT], [SHORT, SHORT[::-1]])

    def talk() -> list[list[int]]:
        caches: list[Any] = []
        said: list[list[int]] = [[], []]
        with torch.no_grad():
            for i, rows in enumerate(texts):
                output = model.hf(input_ids=torch.tensor(rows), use_cache=True)
                caches.append(output.past_key_values)
                said[i].append(int(output.logits[0, -1].argmax()))
            for _ in range(4):
                for i, rows in enumerate(texts):
                    new = torch.tensor([[said[i][-1]]] * len(rows))
                    output = model.hf(input_ids=new, past_key_values=caches[i], use_cache=True)
                    said[i].append(int(output.logits[0, -1].argmax()))
        return said

    with pack.steer(model, spec("generated")):
        got = talk()
    assert got[0] == wanted(model, [PROMPT], "generated", {})[0][:5]


def test_a_copy_made_inside_is_a_model_of_its_own(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = random_pack(model)
    plain = generate(model, [PROMPT])
    for of in ("language model", "hugging face model"):
        with pack.steer(model, spec("all")):
            if of == "language model":
                copied = copy.deepcopy(model)
            else:
                copied = copy.copy(model)
                object.__setattr__(copied, "hf", copy.deepcopy(model.hf))
            assert generate(copied, [PROMPT]) == plain
        assert generate(copied, [PROMPT]) == plain
        assert copied.hf.generate.__self__ is copied.hf
        # Steered as a model of its own; the first one is left alone.
        if of == "language model":
            with pack.steer(copied, spec("all")):
                assert generate(copied, [PROMPT]) == wanted(model, [PROMPT], "all", {})
                assert generate(model, [PROMPT]) == plain
