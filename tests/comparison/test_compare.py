"""Two models side by side: against themselves, and against changes put in by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

import affectlens as al
from affectlens.cli import app
from affectlens.cli.comparison_table import print_comparison
from affectlens.comparison import ComparisonSettings, compare_sources
from affectlens.core.errors import DataError, MismatchError, ModelError, UnknownNameError
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.models.adapters import active_adapters
from affectlens.models.loading import LanguageModel, load_model
from tests.conftest import tiny_hf, tiny_tokenizer

EMOTIONS = ("anger", "fear", "happiness")
CHANGED = 1
QUICK: dict[str, Any] = {"penalties": (0.01,), "folds": 2, "draws": 50, "splits": 2, "prompts": 2}


def corpus(*, splits: bool = True) -> Corpus:
    """Scenarios in every split, each told in three tones."""
    words = {"anger": "so angry", "fear": "afraid of the dark", "happiness": "happy, lovely"}
    records: list[Record] = []
    for s in range(8):
        split = ("fit", "fit", "fit", "test")[s % 4] if splits else "fit"
        for emotion in EMOTIONS:
            reply = f"It {'was' * (s % 3)} {words[emotion]} {chr(97 + s) * (s + 1)} today."
            records.append(
                Record(
                    id=f"{s}:{emotion}",
                    messages=(Message("user", f"Train {s} was late."), Message("assistant", reply)),
                    emotion=emotion,
                    valence="negative",
                    group=f"s{s}",
                    theme="t",
                    split=split,
                )
            )
    return Corpus("small", "replies", tuple(records), label_set=EMOTIONS)


def model(change: Callable[[Any], None] | None = None, **options: Any) -> LanguageModel:
    hf = tiny_hf("llama", **options)
    if change is not None:
        with torch.no_grad():
            change(hf.model.layers[CHANGED])
    return load_model(hf, tokenizer=tiny_tokenizer())


@pytest.fixture(scope="module")
def base() -> LanguageModel:
    return model()


@pytest.fixture(scope="module")
def itself(base: LanguageModel) -> al.Comparison:
    return al.compare(base, model(), corpus(), **QUICK)


def test_a_model_against_itself(itself: al.Comparison) -> None:
    assert itself.base["fingerprint"] == itself.tuned["fingerprint"]
    assert [one.layer for one in itself.probes] == [-1, 0, 1, 2]
    for probe in itself.probes:
        assert probe.base == probe.tuned == probe.transfer
        assert probe.difference is not None
        assert (probe.difference.mean, probe.difference.p) == (0, 1)
    for one in itself.directions:
        assert one.cosine == pytest.approx(1, abs=1e-6)
        assert one.low == pytest.approx(1, abs=1e-6)
        # Directions are centred over three emotions, so the others' average -1/2.
        assert -1 <= one.others < 0
        assert one.dose == pytest.approx(1)
    assert {one.jaccard for one in itself.circuits} == {1.0}
    assert all(one.base == one.tuned for one in itself.circuits)
    assert all((one.expected or 0) < 1 for one in itself.circuits)


def test_neurons_in_another_order_show_in_their_layer_and_nowhere_else(base: LanguageModel) -> None:
    """The function is the same to rounding, so only the names of the units of one MLP change."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))

    def shuffle(block: Any) -> None:
        for linear in (block.mlp.gate_proj, block.mlp.up_proj):
            linear.weight.copy_(linear.weight[order])
            linear.bias.copy_(linear.bias[order])
        block.mlp.down_proj.weight.copy_(block.mlp.down_proj.weight[:, order])

    found = al.compare(base, model(shuffle), corpus(), **QUICK)
    assert min(one.cosine for one in found.directions) > 1 - 1e-5
    assert all(one.base == one.tuned for one in found.probes)
    back = {int(n): i for i, n in enumerate(order)}
    first = al.find_circuit(base, corpus().filter(split="fit"), _directions(base), **_budget(base))
    for one in found.circuits:
        if one.kind == "heads" or one.layer not in (None, CHANGED):
            assert one.jaccard == 1
    for emotion in EMOTIONS:
        (one,) = (x for x in found.circuits if (x.kind, x.layer, x.emotion)
                  == ("neurons", CHANGED, emotion))  # fmt: skip
        there = {u.index for u in first.neurons[emotion] if u.layer == CHANGED}
        moved = {back[i] for i in there}
        assert one.jaccard == pytest.approx(len(there & moved) / len(there | moved))
        n = len(there)
        draws = np.random.default_rng(0).hypergeometric(n, 64 - n, n, 40_000)
        assert one.expected == pytest.approx((draws / (2 * n - draws)).mean(), abs=0.01)
        assert one.p == pytest.approx((draws >= len(there & moved)).mean(), abs=0.02)


def _directions(base: LanguageModel) -> al.Directions:
    sites = "resid_mid,resid_post"
    return al.directions(al.capture(base, corpus().filter(split="fit"), sites=sites), splits=2)


def _budget(base: LanguageModel) -> dict[str, Any]:
    from affectlens.circuits import neutral_prompts
    from affectlens.circuits.units import unit_sizes

    budget = ComparisonSettings().budget.of(unit_sizes(base.anatomy))
    return {"budget": budget, "score": "contrast", "prompts": neutral_prompts(base, 2)}


@pytest.fixture(scope="module")
def negated(base: LanguageModel) -> al.Comparison:
    return al.compare(base, _negated(), corpus(), circuits=False, **QUICK)


def test_what_a_layer_writes_shows_from_there_on(
    base: LanguageModel, negated: al.Comparison
) -> None:
    found = negated
    cosines = {n: [d.cosine for d in found.directions if d.layer == n] for n in range(3)}
    assert min(cosines[0]) > 1 - 1e-6
    assert max(*cosines[1], *cosines[2]) < 0.95
    assert found.circuits == () and found.no_circuits == "not asked for"
    # By hand: class means within complete groups, centred over the emotions.
    for layer in range(3):
        by_hand = torch.cosine_similarity(_by_hand(base, layer), _by_hand(_negated(), layer))
        torch.testing.assert_close(torch.tensor(cosines[layer]), by_hand, atol=1e-4, rtol=1e-4)


def _negated() -> LanguageModel:
    return model(lambda block: block.mlp.down_proj.weight.mul_(-3))


def _by_hand(side: LanguageModel, layer: int) -> torch.Tensor:
    rows: dict[str, list[torch.Tensor]] = {e: [] for e in EMOTIONS}
    for record in corpus().filter(split="fit"):
        row = side.encode_chat(record.chat, add_generation_prompt=False)
        with torch.no_grad():
            hidden = side.hf(torch.tensor([row.ids]), output_hidden_states=True).hidden_states
        start, end = row.spans["reply"]
        if layer + 1 == len(hidden) - 1:  # the last one is normed
            seen: list[torch.Tensor] = []
            handle = side.hf.model.layers[layer].register_forward_hook(
                lambda _m, _a, out, seen=seen: seen.append(out)
            )
            with torch.no_grad():
                side.hf(torch.tensor([row.ids]))
            handle.remove()
            value = seen[0]
        else:
            value = hidden[layer + 1]
        rows[str(record.emotion)].append(value[0, start:end].mean(0))
    means = torch.stack([torch.stack(rows[e]).mean(0) for e in EMOTIONS])
    return means - means.mean(0)


def test_probes_are_those_of_scikit_learn(base: LanguageModel, negated: al.Comparison) -> None:
    found, other = negated, _negated()
    sides = [al.capture(m, corpus(), sites="resid_post@2") for m in (base, other)]
    labels = np.array(sides[0].column("emotion", "mean:reply"))
    test = np.array(sides[0].column("split", "mean:reply")) == "test"
    x, y = (side.to_torch("blocks.2.hook_resid_post").numpy() for side in sides)
    scale = StandardScaler().fit(x[~test])
    probe = LogisticRegression(C=0.01, max_iter=5000, tol=1e-8)
    probe.fit(scale.transform(x[~test]), labels[~test])
    there = found.probes[-1]
    assert there.base == pytest.approx(probe.score(scale.transform(x[test]), labels[test]))
    assert there.transfer == pytest.approx(probe.score(scale.transform(y[test]), labels[test]))
    assert there.difference is not None
    assert there.difference.mean == pytest.approx(there.tuned - there.base)
    assert found.majority == pytest.approx(1 / 3)


def test_without_a_test_split_there_is_no_paired_difference(base: LanguageModel) -> None:
    options: dict[str, Any] = {**QUICK, "folds": 4}
    found = al.compare(base, base, corpus(splits=False), circuits=False, **options)
    assert found.held_out == "nested cross-validation"
    assert {(p.difference, p.transfer) for p in found.probes} == {(None, None)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A base, a LoRA for it, and the base with that LoRA merged in."""
    folder = tmp_path_factory.mktemp("compare")
    torch.manual_seed(0)
    targets = ["q_proj", "o_proj", "down_proj"]
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    lora: Any = peft.get_peft_model(tiny_hf("llama"), config).eval()
    lora.peft_config["default"].base_model_name_or_path = str(folder / "base")
    tiny_hf("llama").save_pretrained(folder / "base")
    lora.save_pretrained(folder / "lora")
    lora.merge_and_unload().save_pretrained(folder / "merged")
    for name in ("base", "merged"):
        tiny_tokenizer().save_pretrained(folder / name)
    return {name: str(folder / name) for name in ("base", "lora", "merged")}


def test_an_adapter_beside_its_base(folders: dict[str, str]) -> None:
    tuned = load_model(folders["lora"], dtype="float32", device="cpu")
    trained = {name: p.requires_grad for name, p in tuned.hf.named_parameters()}
    found = al.compare(tuned, corpus=corpus(), circuits=False, **QUICK)
    assert active_adapters(tuned.hf) == ("default",)
    assert trained == {name: p.requires_grad for name, p in tuned.hf.named_parameters()}
    plain = load_model(folders["base"], dtype="float32", device="cpu")
    apart = compare_sources(
        folders["base"], folders["merged"], corpus(), load={"dtype": "float32", "device": "cpu"},
        circuits=False, **QUICK,
    )  # fmt: skip
    assert found.base["fingerprint"] == apart.base["fingerprint"] != found.tuned["fingerprint"]
    assert found.base["name"].endswith("adapter off")
    for one, two in zip(found.directions, apart.directions, strict=True):
        assert one.cosine == pytest.approx(two.cosine, abs=1e-4)
        assert one.cosine < 1 - 1e-3
    with pytest.raises(ModelError, match="no adapter at work"):
        al.compare(plain, corpus=corpus(), **QUICK)


def _table(path: Path) -> str:
    lines = ["text,emotion,group,valence,split"]
    for record in corpus():
        text = record.messages[1].content.replace(",", "")
        lines.append(f"{text},{record.emotion},{record.group},negative,{record.split}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_the_command(folders: dict[str, str], tmp_path: Path) -> None:
    place = ["--corpus", _table(tmp_path / "t.csv"), "--device", "cpu", "--dtype", "float32"]
    more = ["--no-circuits", "--json", "--save", str(tmp_path / "c.json")]
    said = CliRunner().invoke(app, ["compare", folders["lora"], *place, *more])
    assert said.exit_code == 0, said.output
    figures = json.loads(said.stdout)
    assert figures == json.loads((tmp_path / "c.json").read_text())
    assert len(figures["probes"]) == 4 and len(figures["directions"]) == 9
    assert figures["base"]["name"].endswith("adapter off")
    assert figures["no_circuits"] == "not asked for"


def test_the_table(itself: al.Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(itself, as_json=False)
    said = capsys.readouterr().out
    assert "of all layers: 1.00 of the units are in both (chance 0." in said
    assert "Always saying the most frequent emotion: 0.33" in said
    assert len(itself.to_pandas()) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 2}, r"has 3 layers and .* 2 layers"),
        ({"hidden_size": 64, "head_dim": 8}, r"width 32 and .* width 64"),
    ],
)
def test_other_shapes_are_refused_before_weights_are_read(
    folders: dict[str, str], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    hf = tiny_hf("llama", **changes)
    hf.config.save_pretrained(tmp_path)  # no weights at all
    tiny_tokenizer().save_pretrained(tmp_path)
    ran = CliRunner().invoke(app, ["compare", folders["base"], str(tmp_path)])
    assert ran.exit_code == 1
    assert ran.stderr.count("\n") == 1
    with pytest.raises(MismatchError, match=said):
        al.compare(model(), load_model(hf, tokenizer=tiny_tokenizer()), corpus(), **QUICK)


def test_other_tokenizers_are_refused(base: LanguageModel) -> None:
    longer: Any = tiny_tokenizer()
    longer.add_special_tokens({"additional_special_tokens": ["<|said|>"]})
    longer.chat_template = "<|said|>" + longer.chat_template
    tuned = load_model(tiny_hf("llama", vocab_size=201), tokenizer=longer)
    with pytest.raises(MismatchError, match=r"'<\|said\|>' in the first and missing.*template"):
        al.compare(base, tuned, corpus(), **QUICK)
    found = al.compare(base, tuned, corpus(), template="base", circuits=False, **QUICK)
    assert found.settings["template"] == "base"
    swapped = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    vocab = swapped["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    other: Any = tiny_tokenizer()
    from tokenizers import Tokenizer

    other._tokenizer = Tokenizer.from_str(json.dumps(swapped))
    with pytest.raises(MismatchError, match=r"do not read the same tokens: \d+ is 'a'|is 'b'"):
        al.compare(base, load_model(tiny_hf("llama"), tokenizer=other), corpus(), **QUICK)


def test_what_is_asked_wrongly(folders: dict[str, str], base: LanguageModel) -> None:
    with pytest.raises(UnknownNameError, match="template"):
        al.compare(base, base, corpus(), template="mine")
    with pytest.raises(UnknownNameError, match="option of compare"):
        al.compare(base, base, corpus(), drawz=3)  # type: ignore[call-arg]
    with pytest.raises(DataError, match="prompts must be at least 1"):
        al.compare(base, base, corpus(), prompts=0)
    ran = CliRunner().invoke(app, ["compare", folders["base"]])
    assert ran.exit_code == 1 and "name the one to compare it with" in ran.stderr
