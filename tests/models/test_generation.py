"""Our generation loop against ``hf.generate`` on every prompt alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from affectlens.core import DataError, ModelError, UnknownNameError
from affectlens.models.generation.generation import (
    GenerationSettings,
    encode_prompt,
    generate,
    generate_ids,
)
from affectlens.models.generation.listeners import listeners, listening
from affectlens.models.loading import LanguageModel

PROMPTS = [
    [5, 17, 33, 90, 12, 61],
    [44, 7],
    [101, 102, 103, 104, 105, 9, 8, 7, 6, 5, 4],
    [150],
    [44, 7],
    list(range(20, 42)),
    [*range(20, 40), 99, 98, 97],
]


def by_hf(model: LanguageModel, prompt: Sequence[int], settings: GenerationSettings) -> Any:
    ids = torch.tensor([list(prompt)])
    out = model.hf.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=settings.max_new_tokens,
        min_new_tokens=settings.min_new_tokens or None,
        repetition_penalty=settings.repetition_penalty,
        no_repeat_ngram_size=settings.no_repeat_ngram or None,
        pad_token_id=model.pad_id,
        eos_token_id=list(model.eos_ids),
    )
    row = out[0, len(prompt) :].tolist()
    return tuple(row[:-1] if row[-1] in model.eos_ids else row)


def ends_often(model: LanguageModel, settings: GenerationSettings | None = None) -> LanguageModel:
    """The same model, with ends of reply among the tokens it would generate, at unlike steps."""
    copy = replace(model)
    vars(copy)["eos_ids"] = (0,)
    settings = replace(settings or GenerationSettings(12), min_new_tokens=0)
    free = generate_ids(copy, PROMPTS, settings)
    vars(copy)["eos_ids"] = tuple({row[(3 * i + 2) % len(row)] for i, row in enumerate(free[:4])})
    return copy


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(12, repetition_penalty=1.0),
        GenerationSettings(12, repetition_penalty=1.3),
        GenerationSettings(12, repetition_penalty=0.9, no_repeat_ngram=2),
        GenerationSettings(12, min_new_tokens=5),
        GenerationSettings(1),
    ],
    ids=str,
)
def test_same_tokens_as_transformers(
    each_model: LanguageModel, settings: GenerationSettings
) -> None:
    model = ends_often(each_model, settings)
    wanted = [by_hf(model, prompt, settings) for prompt in PROMPTS]
    assert generate_ids(model, PROMPTS, settings) == wanted
    lengths = {len(reply) for reply in wanted}
    if settings.min_new_tokens:
        assert min(lengths) >= settings.min_new_tokens
    elif settings.max_new_tokens > 1:
        assert len(lengths) > 1  # rows end at different steps


def test_batches_sharing_and_order_change_nothing(tiny_model: Any) -> None:
    model = ends_often(tiny_model("llama"))
    for settings in (GenerationSettings(10), GenerationSettings(10, temperature=1.0, top_p=0.9)):
        wanted = generate_ids(model, PROMPTS, settings)
        steps: list[int] = []
        for options in (
            {"max_tokens_per_batch": 40},
            {"max_tokens_per_batch": 1},
            {"share_prompts": False},
            {"on_progress": steps.append},
        ):
            assert generate_ids(model, PROMPTS, settings, **options) == wanted, options
        assert sum(steps) == len(PROMPTS)
        backwards = generate_ids(model, PROMPTS[::-1], settings)
        if settings.temperature == 0:
            assert backwards[::-1] == wanted
    assert generate_ids(model, [], GenerationSettings()) == []


def test_sampling_depends_on_the_seed_alone(tiny_model: Any) -> None:
    model = tiny_model("llama")
    settings = GenerationSettings(8, temperature=1.0, seed=3)
    once = generate_ids(model, [PROMPTS[0]] * 6, settings)
    assert generate_ids(model, [PROMPTS[0]] * 6, settings) == once
    assert len(set(once)) > 3
    assert generate_ids(model, [PROMPTS[0]] * 4, settings) == once[:4]
    assert generate_ids(model, [PROMPTS[0]] * 6, replace(settings, seed=50)) != once


def test_equal_prompts_and_common_beginnings_are_run_once(tiny_model: Any) -> None:
    start = list(range(20, 60))
    prompts = [[*start, 100 + i % 3, *range(5, 5 + i % 3)] for i in range(9)]
    shapes: list[tuple[int, ...]] = []

    def note(_module: Any, _args: Any, kwargs: Any) -> None:
        shapes.append(tuple(kwargs["input_ids"].shape))

    settings = GenerationSettings(3)
    for family, first in (("llama", [(1, 40), (3, 3)]), ("gemma3", [(3, 43)])):
        model = tiny_model(family)  # gemma3 has sliding windows, which padding inside would shift
        shapes.clear()
        handle = model.hf.register_forward_pre_hook(note, with_kwargs=True)
        try:
            got = generate_ids(model, prompts, settings)
        finally:
            handle.remove()
        assert shapes[: len(first)] == first
        assert got == [by_hf(model, prompt, settings) for prompt in prompts]


def test_rows_that_have_ended_are_dropped(tiny_model: Any) -> None:
    model = tiny_model("llama")
    settings = GenerationSettings(20)
    ended = replace(model)
    free = generate_ids(model, PROMPTS[:4], settings)
    vars(ended)["eos_ids"] = (free[0][0],)  # the first row ends at once
    sizes: list[int] = []

    def note(_module: Any, _args: Any, kwargs: Any) -> None:
        sizes.append(len(kwargs["input_ids"]))

    handle = model.hf.register_forward_pre_hook(note, with_kwargs=True)
    try:
        got = generate_ids(ended, PROMPTS[:4], settings)
    finally:
        handle.remove()
    assert got[0] == () and sizes[0] == 4
    assert sizes[-1] < 4 and sizes == sorted(sizes, reverse=True)
    assert len(sizes) == max(len(reply) for reply in got) + (max(map(len, got)) < 20)


def test_listeners_hear_whose_rows_run(tiny_model: Any) -> None:
    """At every forward pass the announced rows are those whose tokens the model gets."""
    model = ends_often(tiny_model("llama"))
    passes: list[list[tuple[int, int]]] = []

    class Ear:
        def __init__(self) -> None:
            self.now: list[tuple[int, int]] = []

        def untouched(self, row: int, length: int) -> int:
            return (length, length - 1, 0)[row % 3]

        def announce(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
            self.now = list(zip(rows, lengths, strict=True))

    ear = Ear()
    texts: dict[int, list[int]] = {}

    def check(_module: Any, _args: Any, kwargs: Any) -> None:
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
        passes.append(ear.now)
        assert len(ear.now) == len(ids)
        for (row, length), new, real in zip(ear.now, ids.tolist(), mask, strict=True):
            assert length == len(PROMPTS[row])
            total = int(real.sum())
            known = PROMPTS[row] + texts.get(row, [])
            fed = [t for t, m in zip(new, real[-len(new) :].tolist(), strict=True) if m]
            if total <= length:
                assert fed == PROMPTS[row][total - len(fed) : total]
            else:
                texts.setdefault(row, []).extend(fed)
                assert len(known) == total - 1

    handle = model.hf.register_forward_pre_hook(check, with_kwargs=True)
    try:
        with listening(model.hf, ear):
            assert listeners(model.hf) == (ear,)
            got = generate_ids(model, PROMPTS, GenerationSettings(8))
    finally:
        handle.remove()
    assert listeners(model.hf) == ()
    assert ear.now == []
    assert len(passes) > 8
    for row, reply in enumerate(got):
        assert tuple(texts.get(row, []))[: len(reply)] == reply[: len(texts.get(row, []))]
    assert got == generate_ids(model, PROMPTS, GenerationSettings(8))


def test_text_in_text_out(tiny_model: Any) -> None:
    model = tiny_model("llama")
    ids = encode_prompt(model, "I am happy.", "Be kind.")
    text = model.tokenizer.decode(list(ids))
    assert text.endswith("<|im_start|>assistant\n") and "Be kind." in text
    (wanted,) = generate_ids(model, [ids], GenerationSettings(5))
    reply = generate(model, "I am happy.", system="Be kind.", max_new_tokens=5)
    assert reply == model.tokenizer.decode(list(wanted), skip_special_tokens=True).strip()
    assert model.generate(["I am happy."], system="Be kind.", max_new_tokens=5) == [reply]


def test_mistakes_are_named(tiny_model: Any) -> None:
    model = tiny_model("llama")
    with pytest.raises(DataError, match="Prompt 1 has 0 tokens"):
        generate_ids(model, [[5], []], GenerationSettings(5))
    with pytest.raises(DataError, match=r"Prompt 0 has 252 tokens.*1 to 251"):
        generate_ids(model, [[5] * 252], GenerationSettings(5))
    with pytest.raises(UnknownNameError, match="max_new_tokens"):
        generate(model, "a", max_new_token=5)
    broken = replace(model)
    bias = torch.nn.Parameter(torch.full_like(model.anatomy.final_norm.weight, torch.nan))
    whole = model.anatomy.final_norm.weight
    model.anatomy.final_norm.weight = bias
    try:
        with pytest.raises(ModelError, match="prompt 0 are not finite"):
            generate_ids(broken, [[5]], GenerationSettings(5))
    finally:
        model.anatomy.final_norm.weight = whole


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_attention_implementation_is_put_back(tiny_model: Any, implementation: str) -> None:
    from affectlens.models.generation.attention import NAME, fast_decoding

    model = tiny_model("llama", seed=7)
    model.hf.set_attn_implementation(implementation)
    inside = NAME if implementation == "sdpa" else "eager"
    with pytest.raises(RuntimeError), fast_decoding(model.hf):
        assert model.hf.config._attn_implementation == inside
        raise RuntimeError
    assert model.hf.config._attn_implementation == implementation


@pytest.mark.model
def test_same_tokens_as_transformers_on_the_default_model(real_model: LanguageModel) -> None:
    """In float32; in bfloat16 near ties are decided by the shape of the batch."""
    import copy

    hf = copy.deepcopy(real_model.hf).float()
    from affectlens.models.anatomy.anatomy import find_anatomy

    model = replace(real_model, hf=hf, anatomy=find_anatomy(hf))
    texts = ["My train was cancelled.", "My dog is ill.", "I won the prize!", "Write a haiku."]
    prompts = [list(encode_prompt(model, text)) for text in texts]
    settings = GenerationSettings(12)
    assert generate_ids(model, prompts, settings) == [by_hf(model, p, settings) for p in prompts]
