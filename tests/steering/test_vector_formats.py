"""Vector files: what other tools do with ours, what we do with theirs, what is refused."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.core import (
    AffectLensError,
    ArtefactError,
    DataError,
    MismatchError,
    UnknownNameError,
)
from affectlens.steering import SteeringPack
from affectlens.steering.exporting import block_vectors, export_vectors
from affectlens.steering.formats.vectors import VECTOR_FORMATS
from affectlens.steering.importing import import_vectors
from affectlens.steering.residual_equivalent import compare_effects, residual_equivalent
from tests.steering import vector_tools as tools
from tests.steering.oracle import random_pack

IDS = torch.tensor([[5, 17, 33, 90, 12, 61, 7, 44], [101, 9, 8, 7, 6, 5, 4, 150]])
FORMATS = list(VECTOR_FORMATS)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model.hf(input_ids=IDS, use_cache=False).logits


def steered(model: Any, pack: SteeringPack, spec: str) -> Tensor:
    with pack.steer(model, spec):
        return logits(model)


def middle(model: Any, seed: int = 0) -> SteeringPack:
    """A pack that steers block 1 alone, which every format can hold."""
    pack, generator = random_pack(model, seed), torch.Generator().manual_seed(seed)
    vectors = {"residual.resid_post": torch.randn(3, 1, model.d_model, generator=generator) * 0.4}
    return replace(
        pack,
        vectors={**pack.vectors, **vectors},
        layers={**pack.layers, "residual.resid_post": (1,)},
    )


def test_every_format_has_an_independent_reader() -> None:
    assert set(tools.READERS) == set(FORMATS)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", FORMATS)
def test_the_tool_adds_what_the_pack_adds(
    name: str, family: str, tiny_model: Any, tmp_path: Path
) -> None:
    model = tiny_model(family)
    pack, path = middle(model), tmp_path / f"v{VECTOR_FORMATS[name].ending}"
    spec = "anger=0.8,fear=-0.5;mode=residual"
    blocks = "h" if family == "gpt2" else "layers"
    done = export_vectors(pack, spec, path, name, block_list=blocks)
    ours = steered(model, pack, f"{spec};positions=all")
    assert torch.dist(ours, logits(model)) > 1
    with tools.READERS[name](model.hf, path):
        theirs = logits(model)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)
    assert list(done.blocks) == [1] and done.request.startswith("anger=0.8,fear=-0.5")
    assert any("last_prompt+generated" in note for note in done.notes)
    # The same vector one block earlier or later is another thing.
    for wrong in (0, 2):
        moved = replace(pack, layers={**pack.layers, "residual.resid_post": (wrong,)})
        shifted = steered(model, moved, f"{spec};positions=all")
        assert (shifted - ours).norm() > 0.2 * (ours - logits(model)).norm()


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_read_again(name: str, tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    for seed, unit in enumerate(("recommended", "natural", "rms", "raw")):
        pack, path = middle(model, seed), tmp_path / f"{unit}{VECTOR_FORMATS[name].ending}"
        spec = f"anger=0.8,fear=-0.5;mode=residual;unit={unit}"
        export_vectors(pack, spec, path, name)
        found = import_vectors({"cross": path}, model, name).pack
        assert found.emotions == ("cross",) and found.positions == {"residual": "all"}
        ours = steered(model, pack, f"{spec};positions=all")
        torch.testing.assert_close(steered(model, found, "cross=1"), ours, atol=1e-6, rtol=1e-6)
        found.save(tmp_path / "pack.safetensors")
        again = SteeringPack.load(tmp_path / "pack.safetensors", model)
        torch.testing.assert_close(steered(model, again, "cross=1"), ours, atol=1e-6, rtol=1e-6)


def golden(tmp_path: Path, d: int) -> dict[str, tuple[Path, dict[int, Tensor]]]:
    """A file per tool, as it makes them, and what it adds after which block."""
    vectors = {n: torch.linspace(-n, n + 1, d) for n in (1, 2)}
    made: dict[str, tuple[Path, dict[int, Tensor]]] = {}

    def keep(name: str, fmt: str, content: Any, expected: dict[int, Tensor]) -> None:
        path = tmp_path / f"{name}{VECTOR_FORMATS[fmt].ending}"
        if callable(content):
            content(path)
        elif isinstance(content, str):
            path.write_text(content)
        else:
            path.write_bytes(content)
        made[f"{fmt} {name}"] = path, expected

    keep("repeng", "gguf", tools.repeng_gguf(vectors), vectors)
    keep("generator", "gguf", tools.generator_gguf(vectors), vectors)
    zero = {0: vectors[1] * 3}
    keep("easysteer", "easysteer", tools.easysteer_gguf({**zero, **vectors}), {**zero, **vectors})
    old = tools.repeng_gguf({**zero, **vectors})
    keep("old", "easysteer", old, {**zero, **vectors})
    before = {n - 1: v for n, v in vectors.items()}
    keep("cast", "svec", tools.svec_text({**zero, **vectors}), before)
    keep("caa", "svec-caa", tools.svec_text({2: vectors[2]}, rows=True), {2: vectors[2]})
    twice = {n: 2 * v for n, v in vectors.items()}
    keep("harness", "lm-eval", lambda p: tools.save_lm_eval(p, vectors, 2.0), twice)
    rows = torch.stack([torch.ones(d), torch.zeros(d), vectors[1], torch.zeros(d)])
    keep("trait", "persona-pt", lambda p: tools.save_persona(p, rows), {1: vectors[1]})
    tensors = {f"blocks.{n}.hook_resid_post": v for n, v in vectors.items()}
    keep("plain", "safetensors", tools.safetensors_bytes(tensors), vectors)
    return made


def test_files_of_other_tools_are_read_as_they_read_them(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    made = golden(tmp_path, model.d_model)
    assert {name.split()[0] for name in made} == set(FORMATS)
    for name, (path, expected) in made.items():
        fmt = name.split()[0]
        pack = import_vectors({"anger": path}, model, fmt).pack
        assert pack.layers == {"residual.resid_post": tuple(sorted(expected))}, name
        for block, vector in zip(
            sorted(expected), pack.vectors["residual.resid_post"][0], strict=True
        ):
            torch.testing.assert_close(vector, expected[block], msg=name)
        ours = steered(model, pack, "anger=1")
        if "old" not in name and "cast" not in name:
            with tools.READERS[fmt](model.hf, path):
                torch.testing.assert_close(ours, logits(model), atol=1e-5, rtol=1e-5, msg=name)


def test_what_a_file_does_not_say_is_told(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    made = golden(tmp_path, model.d_model)

    def notes(name: str) -> str:
        return " ".join(import_vectors({"a": made[name][0]}, model, name.split()[0]).notes)

    assert "measured after block N-1" in notes("gguf generator") and not notes("gguf repeng")
    assert "embeddings" in notes("svec cast") and "embeddings" in notes("persona-pt trait")
    rows = torch.zeros(4, model.d_model)
    rows[3] = 1
    tools.save_persona(tmp_path / "last.pt", rows)
    found = import_vectors({"a": tmp_path / "last.pt"}, model, "persona-pt")
    assert "final norm" in found.notes[0] and found.pack.layers == {"residual.resid_post": (2,)}


def test_one_block_of_a_file_of_single_blocks_is_chosen(tiny_model: Any, tmp_path: Path) -> None:
    model, path = tiny_model("llama"), tmp_path / "v.pt"
    tools.save_persona(path, torch.arange(4.0)[:, None].expand(4, model.d_model).clone())
    with pytest.raises(DataError, match="--layers"):
        import_vectors({"a": path}, model, "persona-pt")
    found = import_vectors({"a": path}, model, "persona-pt", layers="1").pack
    assert found.layers == {"residual.resid_post": (1,)}
    assert found.vectors["residual.resid_post"].unique().tolist() == [2.0]


def test_several_files_are_one_pack(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    pack = random_pack(model)
    files = {}
    for emotion in ("anger", "fear"):
        files[emotion] = tmp_path / f"{emotion}.safetensors"
        spec = f"{emotion}=1;mode=residual"
        export_vectors(pack, spec, files[emotion], "safetensors", layers="2")
    found = import_vectors(files, model, "safetensors", positions="generated").pack
    only = replace(
        pack,
        vectors={"residual.resid_post": pack.vectors["residual.resid_post"][:, 1:]},
        layers={"residual.resid_post": (2,)},
    )
    spec = "anger=0.5,fear=-0.7"
    wanted = steered(model, only, f"{spec};positions=all")
    torch.testing.assert_close(
        steered(model, found, f"{spec};positions=all"), wanted, atol=1e-6, rtol=1e-6
    )
    assert found.positions == {"residual": "generated"}
    assert set(found.provenance.parameters["imported"]) == {"anger", "fear"}


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["lm-eval", "persona-pt"])
def test_a_hostile_pickle_is_not_run(name: str, tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "v.pt"
    for save in (
        lambda value: torch.save({"layers.1": value}, file),
        lambda value: file.write_bytes(pickle.dumps(value)),
    ):
        save(Hostile(mark))
        with pytest.raises(ArtefactError, match="nothing of it was run") as caught:
            VECTOR_FORMATS[name].read(file)
        assert "\n" not in str(caught.value) and not mark.exists()
    pickle.loads(pickle.dumps(Hostile(mark)))
    assert mark.exists(), "it would have done harm"


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_refused_in_one_sentence(
    name: str, tiny_model: Any, tmp_path: Path
) -> None:
    model, ending = tiny_model("llama"), VECTOR_FORMATS[name].ending
    good, bad = tmp_path / f"good{ending}", tmp_path / f"bad{ending}"
    export_vectors(middle(model), "anger=1;mode=residual", good, name)
    raw = good.read_bytes()
    rubbish = [raw[:cut] for cut in (0, 3, 20, len(raw) // 3, len(raw) - 40)]
    rubbish += [b"\x00" * 64, b"not this" * 40]
    if ending != ".pt":  # of a zip, nobody reads these
        rubbish.append(raw[:8] + b"\xff" * 16 + raw[24:])
    for content in rubbish:
        bad.write_bytes(content)
        with pytest.raises(AffectLensError) as caught:
            import_vectors({"anger": bad}, model, name)
        assert "\n" not in str(caught.value) and str(bad) in str(caught.value)
    with pytest.raises(ArtefactError, match="no file"):
        VECTOR_FORMATS[name].read(tmp_path / f"none{ending}")


def test_files_that_are_something_else_are_refused(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    d = model.d_model
    one = {1: torch.ones(d)}

    def refused(name: str, content: Any, sentence: str) -> None:
        path = tmp_path / f"x{VECTOR_FORMATS[name].ending}"
        if callable(content):
            content(path)
        elif isinstance(content, str):
            path.write_text(content)
        else:
            path.write_bytes(content)
        with pytest.raises(AffectLensError, match=sentence) as caught:
            import_vectors({"anger": path}, model, name)
        assert "\n" not in str(caught.value)

    llama = [("general.architecture", tools.STRING, "llama")]
    control = [("general.architecture", tools.STRING, "controlvector")]
    refused("gguf", tools.gguf_bytes(llama, {"direction.1": one[1]}), "no control vector")
    refused("gguf", tools.gguf_bytes(control, {"token_embd.weight": one[1]}), "token_embd.weight")
    refused("gguf", tools.gguf_bytes(control, {"direction.1": one[1]}, kind=26), "I32")
    refused("gguf", tools.gguf_bytes(control, {"direction.1": torch.ones(d, d)}), "no vector")
    refused("gguf", tools.gguf_bytes(control, {}), "no vector")
    refused("gguf", tools.repeng_gguf({0: one[1], **one}), "easysteer")
    refused("gguf", tools.repeng_gguf({1: torch.ones(d + 1)}), f"width {d + 1}")
    refused("gguf", tools.repeng_gguf({**one, 2: torch.ones(d + 1)}), "widths")
    refused("gguf", tools.repeng_gguf({3: one[1]}), "block 3")
    refused("gguf", tools.repeng_gguf({1: one[1] * torch.nan}), "NaN")
    refused("easysteer", tools.easysteer_gguf(one, "attention_heads"), "attention_heads")
    refused("svec", "[]", "no .svec")
    refused("svec", json.dumps({"directions": {"one": [1.0]}}), "'one'")
    refused("svec", json.dumps({"directions": {"1": ["x"]}}), "damaged")
    refused("svec", json.dumps({"directions": {"1": [[1.0], [2.0]]}}), "shape")
    refused("svec", "[" * 100_000, "damaged|JSON")
    refused("svec", tools.svec_text({4: one[1]}), "block 3")
    refused("lm-eval", lambda p: tools.save_lm_eval(p, one, action="clamp"), "clamp")
    refused("lm-eval", lambda p: tools.save_lm_eval(p, one, head_index=1), "just add")
    refused("lm-eval", lambda p: tools.save_lm_eval(p, one, bias=one[1]), "just add")
    refused("lm-eval", lambda p: torch.save({"layers.1.mlp": {}}, p), "layers.1.mlp")
    refused("lm-eval", lambda p: torch.save(one[1], p), "steered")
    refused("persona-pt", lambda p: torch.save(torch.ones(5, d), p), "4 blocks")
    refused("persona-pt", lambda p: torch.save(one[1], p), "n_layers")
    huge = torch.ones(1, 1).expand(4, 10**9)
    refused("persona-pt", lambda p: torch.save(huge, p), "damaged")
    refused("safetensors", tools.safetensors_bytes({"v": one[1]}), "tensor v")


def test_what_no_format_holds_is_refused(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    pack, path = random_pack(model), tmp_path / "v.gguf"

    def refused(error: type[Exception], sentence: str, spec: Any, **options: Any) -> None:
        with pytest.raises(error, match=sentence) as caught:
            export_vectors(pack, spec, path, options.pop("format", "gguf"), **options)
        assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())

    refused(DataError, "gate", "anger=1;gate=fear>0.4")
    refused(DataError, "schedule", "anger=1;schedule=rise:20")
    refused(DataError, "operator=clamp", "anger=1;operator=clamp")
    refused(DataError, "positions=generated", "anger=1;positions=generated")
    refused(DataError, "changes nothing", "none")
    refused(DataError, "block 0.*--layers 1-2", "anger=1")
    refused(DataError, "name the model", "anger=1;mode=circuit")
    refused(DataError, "block 0", "anger=1;mode=circuit", model=model)
    refused(DataError, "blocks 1", "anger=1", layers="1")
    refused(UnknownNameError, "layer", "anger=1", layers="1-9")
    refused(UnknownNameError, "gguf", "anger=1", format="ggml")
    refused(UnknownNameError, "anger", "angr=1")
    refused(DataError, "end in .svec", "anger=1", format="svec")
    path = tmp_path / "v.svec"
    refused(DataError, "block 2.*--layers 0-1", "anger=1", format="svec")
    refused(MismatchError, "another|for", "anger=1;mode=circuit",
            format="svec-caa", model=tiny_model("llama", 1))  # fmt: skip


def test_a_circuit_that_adds_at_the_end_of_blocks_is_found_exactly(tiny_model: Any) -> None:
    model = tiny_model("llama")
    whole = random_pack(model)
    name = "circuit.down_proj_out"
    pack = replace(whole, vectors={name: whole.vectors[name]}, layers={name: whole.layers[name]})
    content, fit = block_vectors(pack, "anger=2,fear=-1;unit=natural", model=model)
    wanted = 2 * pack.vectors[name][0] - pack.vectors[name][1]
    found = torch.stack([content.vectors[n] for n in pack.layers[name]])
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=2e-4)
    assert fit is not None and fit.error < 1e-3 and fit.correlation > 0.999 and fit.tokens > 100
    assert fit.same_token == 1


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox", "olmo2"])
def test_the_error_of_a_circuits_equivalent_is_that_of_its_effect(
    family: str, tiny_model: Any, tmp_path: Path
) -> None:
    """Against plain hooks: what is told is what a tool gets that reads the file."""
    model = tiny_model(family)
    pack = random_pack(model, size=0.3)
    resolved = pack.resolve("happiness=1;mode=circuit")
    ids = torch.cat([IDS, IDS.flip(1)])
    vectors, fit = residual_equivalent(model, pack, resolved, [0, 1, 2], ids)
    assert set(vectors) == {0, 1, 2}
    rest = ids[2:]
    blocks = model.hf.base_model.layers
    handles = [blocks[n].register_forward_hook(tools._output(v)) for n, v in vectors.items()]
    with torch.no_grad():
        ours = model.hf(input_ids=rest, use_cache=False).logits
        for handle in handles:
            handle.remove()
        plain = model.hf(input_ids=rest, use_cache=False).logits
        with pack.steer(model, "happiness=1;mode=circuit;positions=all"):
            theirs = model.hf(input_ids=rest, use_cache=False).logits
    error = ((ours - theirs).norm() / (theirs - plain).norm()).item()
    assert fit.error == pytest.approx(error, rel=1e-3) and 0 < fit.error < 1
    size = ((ours - plain).norm() / (theirs - plain).norm()).item()
    assert fit.size == pytest.approx(size, rel=1e-3)
    corr = torch.corrcoef(torch.stack([(ours - plain).flatten(), (theirs - plain).flatten()]))
    assert fit.correlation == pytest.approx(float(corr[0, 1]), abs=1e-3)


def test_means_are_the_same_after_every_block(tiny_model: Any) -> None:
    """The property that defines the vectors, by reading the streams of both ways."""
    model = tiny_model("llama")
    pack = random_pack(model)
    spec = "anger=1;mode=circuit"
    ids = torch.cat([IDS, IDS])
    vectors, _ = residual_equivalent(model, pack, pack.resolve(spec), [0, 1, 2], ids)
    seen: dict[str, list[Tensor]] = {"circuit": [], "equivalent": []}

    def run(name: str) -> None:
        def keep(_m: Any, _a: Any, out: Any) -> None:
            seen[name].append((out[0] if isinstance(out, tuple) else out).mean((0, 1)))

        handles = [block.register_forward_hook(keep) for block in model.hf.base_model.layers]
        logits(model)
        for handle in handles:
            handle.remove()

    with pack.steer(model, f"{spec};positions=all"):
        run("circuit")
    blocks = model.hf.base_model.layers
    added = [blocks[n].register_forward_hook(tools._output(v)) for n, v in vectors.items()]
    run("equivalent")
    for handle in added:
        handle.remove()
    for one, other in zip(*seen.values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_effects_are_compared_by_hand() -> None:
    plain = torch.zeros(1, 2, 3)
    theirs = torch.tensor([[[3.0, 0, 0], [0, 4, 0]]])
    ours = torch.tensor([[[3.0, 0, 0], [0, 0, 4]]])
    fit = compare_effects(plain, theirs, ours)
    assert fit.error == pytest.approx(32**0.5 / 5) and fit.size == 1
    assert fit.same_token == 0.5 and fit.tokens == 2
    with pytest.raises(DataError, match="no logit"):
        compare_effects(plain, plain, ours)


def test_labels_of_other_tools_may_be_unusable(tiny_model: Any, tmp_path: Path) -> None:
    model, path = tiny_model("llama"), tmp_path / "v.safetensors"
    export_vectors(middle(model), "anger=1;mode=residual", path, "safetensors")
    with pytest.raises(DataError):
        import_vectors({"a=b": path}, model, "safetensors")
    with pytest.raises(DataError, match="no file"):
        import_vectors({}, model, "safetensors")
    with pytest.raises(UnknownNameError, match="positions"):
        import_vectors({"a": path}, model, "safetensors", positions="last")
