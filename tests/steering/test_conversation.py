"""Dialogues: what is read, what is steered, what is remembered, and the command."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.core import DataError, MismatchError
from affectlens.core.emotions import NEUTRAL
from affectlens.core.errors import UnknownNameError
from affectlens.models import load_model
from affectlens.models.generation.generation import GenerationSettings, generate_ids
from affectlens.models.loading import LanguageModel
from affectlens.steering import SteeringPack, generate_steered
from affectlens.steering.conversation import ConversationSettings, ConversationTurn, converse
from affectlens.steering.gates import Readout
from affectlens.steering.message_reading import probe_of, read_messages
from affectlens.steering.policies import AffectState, Known, load_policy
from tests.conftest import make_tiny
from tests.steering.oracle import EMOTIONS, random_pack
from tests.tiny_run import save_model

EXAMPLES = Path(__file__).parents[2] / "examples"
SAID = ["They gave my desk away!", "Nobody asked me.", "Oh, lovely."]
SHORT = ConversationSettings(generation=GenerationSettings(max_new_tokens=6))


def with_readout(pack: SteeringPack, size: float = 0.2) -> SteeringPack:
    generator = torch.Generator().manual_seed(5)
    classes = (*EMOTIONS, NEUTRAL)
    weights = torch.randn(2, len(classes), pack.d_model, generator=generator) * size
    bias = torch.randn(2, len(classes), generator=generator)
    return replace(pack, readout=Readout(classes, (0, 1), weights, bias))


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return make_tiny("llama", max_position_embeddings=1024)


@pytest.fixture(scope="module")
def pack(model: LanguageModel) -> SteeringPack:
    return with_readout(random_pack(model, size=2))


def chat(*turns: str) -> list[dict[str, str]]:
    return [
        {"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(turns)
    ]


def written(model: LanguageModel, row: Any) -> str:
    return str(model.tokenizer.decode(list(row), skip_special_tokens=True)).strip()


def test_messages_are_read_where_replies_stand(model: LanguageModel, pack: SteeringPack) -> None:
    """By plain Transformers: the mean over the message's tokens, the last of the probes."""
    assert pack.readout is not None
    found = read_messages(model, pack, SAID)
    for text, shares in zip(SAID, found, strict=True):
        row = model.encode_chat(chat("Tell me about it.", text), add_generation_prompt=False)
        start, end = row.spans["reply"]
        with torch.no_grad():
            hidden = model.hf(torch.tensor([row.ids]), output_hidden_states=True).hidden_states[2]
        scores = pack.readout.weights[1] @ hidden[0, start:end].mean(0) + pack.readout.bias[1]
        wanted = dict(zip(pack.readout.classes, scores.softmax(-1).tolist(), strict=True))
        assert shares == pytest.approx(wanted, abs=1e-5)
    assert found[0] != found[1]
    assert probe_of(pack).site.layer == 1


def test_strength_0_is_the_model_as_it_is(model: LanguageModel, pack: SteeringPack) -> None:
    for name in ("transition;traits=neuroticism:1", "mirror", "calm", "constant"):
        turns = list(converse(model, pack, load_policy(f"{name};strength=0"), SAID, settings=SHORT))
        told: list[str] = []
        for turn in turns:
            told.append(turn.message)
            ids = model.encode_chat(chat(*told), add_generation_prompt=True).ids
            (row,) = generate_ids(model, [ids], SHORT.generation)
            assert turn.reply == written(model, row) and not turn.spec
            told.append(turn.reply)


def test_each_reply_is_steered_as_the_policy_says(model: LanguageModel, pack: SteeringPack) -> None:
    policy = load_policy("transition;reactivity=0.9;decay=0.2;strength=3")
    options = {"mode": "circuit", "unit": "natural"}
    settings = replace(SHORT, system="Be brief.", options=options)
    turns = list(converse(model, pack, policy, SAID, settings=settings))
    state, told = policy.begin(), [{"role": "system", "content": "Be brief."}]
    for turn, message in zip(turns, SAID, strict=True):
        (read,) = read_messages(model, pack, [message])
        decision = policy.decide(Known(state, read, pack.emotions))
        spec = pack.resolve({"weights": dict(decision.strengths), **options})
        told.append({"role": "user", "content": message})
        ids = model.encode_chat(told, add_generation_prompt=True).ids
        (row,) = generate_steered(model, pack, [ids], [spec], SHORT.generation)
        wanted = ConversationTurn(
            message, read, decision.strengths, spec, decision.state, written(model, row)
        )
        assert turn == wanted and spec
        state = decision.state
        told.append({"role": "assistant", "content": turn.reply})
    plain = list(converse(model, pack, load_policy("mirror;strength=0"), SAID, settings=settings))
    assert [t.reply for t in turns] != [t.reply for t in plain]


def test_a_dialogue_goes_on_where_it_was(model: LanguageModel, pack: SteeringPack) -> None:
    policy = load_policy("transition;strength=2")
    whole = list(converse(model, pack, policy, SAID, settings=SHORT))
    first = list(converse(model, pack, policy, SAID[:1], settings=SHORT))
    rest = list(converse(model, pack, policy, SAID[1:], settings=SHORT, before=first))
    assert first + rest == whole
    elsewhere = AffectState(valence=0.9, arousal=0.9)
    moved = next(iter(converse(model, pack, policy, SAID, settings=SHORT, state=elsewhere)))
    assert moved.state != whole[0].state


def test_a_message_is_asked_for_when_the_reply_before_is_there(
    model: LanguageModel, pack: SteeringPack
) -> None:
    asked: list[str] = []

    def messages() -> Any:
        for text in SAID:
            asked.append(text)
            yield text

    turns = converse(model, pack, load_policy("mirror"), messages(), settings=SHORT)
    assert asked == []
    assert next(turns).message == SAID[0] and asked == SAID[:1]


def test_what_cannot_be_is_refused(model: LanguageModel, pack: SteeringPack) -> None:
    mirror = load_policy("mirror")

    def first(pack: SteeringPack, *messages: str, policy: Any = mirror) -> Any:
        return next(converse(model, pack, policy, messages, settings=SHORT))

    with pytest.raises(DataError, match="holds no probes"):
        first(replace(pack, readout=None), "Hi.")
    with pytest.raises(DataError, match="message is empty"):
        first(pack, " ")
    with pytest.raises(UnknownNameError, match="disgust"):
        first(pack, "Hi.", policy=load_policy("constant;emotions=disgust:1"))
    with pytest.raises(MismatchError):
        first(with_readout(random_pack(make_tiny("llama", seed=1))), "Hi.")
    far = make_tiny("llama", max_position_embeddings=80)
    tight = with_readout(random_pack(far))
    with pytest.raises(DataError, match="Begin a new one"):
        list(converse(far, tight, mirror, ["Hi there, you."] * 9, settings=SHORT))


def named(pack: SteeringPack, *emotions: str) -> SteeringPack:
    """The same vectors under other names."""
    again = dict(zip(pack.emotions, emotions, strict=True))
    recommended = {
        mode: {again[e]: dose for e, dose in doses.items()}
        for mode, doses in pack.recommended.items()
    }
    return replace(pack, emotions=emotions, recommended=recommended)


def test_a_probe_of_other_emotions_is_refused(
    model: LanguageModel, pack: SteeringPack, caplog: pytest.LogCaptureFixture
) -> None:
    others = [f"mood{i}" for i in range(len(EMOTIONS))]
    for names in (others, [NEUTRAL, *others[1:]]):
        with pytest.raises(DataError, match=f"tells {EMOTIONS[0]}, .* steers {names[0]}, "):
            read_messages(model, named(pack, *names), SAID)
    some = named(pack, "rage", *EMOTIONS[1:])
    for _ in range(2):
        (read,) = read_messages(model, some, SAID[:1])
        assert read["rage"] == 0 and sum(read.values()) == pytest.approx(1)
    (warning,) = [r.getMessage() for r in caplog.records if "cannot be read" in r.getMessage()]
    assert "rage cannot be read" in warning


def test_an_emotion_called_neutral_keeps_its_reading(
    model: LanguageModel, pack: SteeringPack
) -> None:
    assert pack.readout is not None
    (plain,) = read_messages(model, pack, SAID[:1])
    neutral = named(pack, NEUTRAL, *EMOTIONS[1:])
    (read,) = read_messages(model, neutral, SAID[:1])
    assert sum(read.values()) == pytest.approx(1)
    assert read[NEUTRAL] == pytest.approx(plain[NEUTRAL] + plain[EMOTIONS[0]], abs=1e-6)
    assert read[NEUTRAL] > plain[EMOTIONS[0]] > 0


def test_a_policy_beyond_the_unit_is_refused_before_a_message_is_asked_for(
    model: LanguageModel, pack: SteeringPack
) -> None:
    asked: list[str] = []
    settings = replace(SHORT, options={"unit": "heard"})
    said = (asked.append(text) or text for text in SAID)
    with pytest.raises(DataError, match="unit=heard strengths go up to 1"):
        next(converse(model, pack, load_policy("mirror;strength=5"), said, settings=settings))
    assert asked == []


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dialogue")
    save_model(folder)
    loaded = load_model(str(folder / "model"), dtype="float32")
    with_readout(random_pack(loaded, size=2)).save(folder / "pack.safetensors")
    return folder


def command(folder: Path, *more: str, said: str | None = None) -> Any:
    fixed = ["--pack", str(folder / "pack.safetensors"), "--model", str(folder / "model"),
             "--dtype", "float32", "--device", "cpu", "--max-new-tokens", "6"]  # fmt: skip
    return CliRunner().invoke(app, ["dialogue", *fixed, *more], input=said, env={"COLUMNS": "200"})


def rows(done: Any) -> list[Mapping[str, Any]]:
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_command_tells_every_turn(on_disk: Path) -> None:
    loaded = load_model(str(on_disk / "model"), dtype="float32")
    pack = SteeringPack.load(on_disk / "pack.safetensors", loaded)
    options = {"mode": "circuit", "unit": "natural"}
    settings = replace(SHORT, system="Be brief.", options=options)
    policy = "transition;strength=2"
    wanted = converse(loaded, pack, load_policy(policy), SAID, settings=settings)
    given = ["--policy", policy, "--mode", "circuit", "--unit", "natural", "--system", "Be brief."]
    found = rows(command(on_disk, *SAID, *given, "--json"))
    assert found == [json.loads(json.dumps(turn.to_dict())) for turn in wanted]
    shown = command(on_disk, *SAID, *given).output
    for row in found:
        for text in (row["message"], row["spec"], f"arousal {row['state']['arousal']:+.2f}"):
            assert text in shown


def test_messages_come_as_arguments_from_a_file_or_as_they_are_typed(
    on_disk: Path, tmp_path: Path
) -> None:
    (tmp_path / "said.txt").write_text("\n".join(SAID[:2]) + "\n\n")
    given = ["--policy", "mirror", "--json"]
    as_arguments = rows(command(on_disk, *SAID[:2], *given))
    assert len(as_arguments) == 2
    assert rows(command(on_disk, "--file", str(tmp_path / "said.txt"), *given)) == as_arguments
    assert rows(command(on_disk, *given, said="\n\n".join(SAID[:2]))) == as_arguments


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["Hi.", "--policy", "mirorr"], "mirror"),
        (["Hi.", "--policy", "mirror;strength=nan"], "strength must be a number"),
        (["Hi.", "--unit", "herd"], "heard"),
        (["Hi.", "--policy", "mirror;strength=5", "--unit", "heard"], "go up to 1"),
        (["Hi.", "--policy", "constant;emotions=happiness:15;strength=2"], "not 30"),
        (["Hi.", "--mode", "circus"], "circuit"),
        (["Hi.", "--file", "x.txt"], "not both"),
        (["--file", "nowhere.txt"], "nowhere.txt"),
        (["Hi.", "--pack", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_bad_input_ends_in_a_sentence(on_disk: Path, given: list[str], sentence: str) -> None:
    fixed = [] if "--pack" in given else ["--pack", str(on_disk / "pack.safetensors")]
    # No such model: what is wrong is found before one is loaded.
    done = CliRunner().invoke(app, ["dialogue", "--model", "nowhere", *fixed, *given])
    assert done.exit_code == 1 and done.output.startswith("Error: ")
    assert sentence in done.output.replace("\n", " ")


def test_a_pack_of_another_model_is_taken_when_told_so(on_disk: Path, tmp_path: Path) -> None:
    other = with_readout(random_pack(make_tiny("llama", seed=3)))
    other.save(tmp_path / "other.safetensors")
    given = ["Hi there.", "--model", str(on_disk / "model"), "--pack",
             str(tmp_path / "other.safetensors"), "--max-new-tokens", "2"]  # fmt: skip
    done = CliRunner().invoke(app, ["dialogue", *given])
    assert done.exit_code == 1 and "force" in done.output.replace("\n", " ")
    assert CliRunner().invoke(app, ["dialogue", *given, "--force"]).exit_code == 0


def test_a_unit_that_the_pack_was_not_measured_in_is_refused(on_disk: Path) -> None:
    done = command(on_disk, "Hi.", "--unit", "heard", "--policy", "constant;emotions=anger:0.5")
    assert done.exit_code == 1 and "tune intensity" in done.output.replace("\n", " ")


def test_the_example_draws_the_mood() -> None:
    spec = importlib.util.spec_from_file_location("mood_line", EXAMPLES / "mood_line.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.line(-1, 0.9).startswith("#") and module.line(1, -0.5).endswith(".")
    assert module.line(0, 0.0)[10] == "o" and len(module.line(0.3, 0.2)) == module.WIDTH
    out = io.StringIO()
    turn = {"message": "Hi.", "read": {"anger": 0.7, "neutral": 0.3}, "strengths": {},
            "spec": "anger=0.7", "state": {"valence": -0.4, "arousal": 0.4, "dominance": 0.1},
            "reply": "So\nwhat."}  # fmt: skip
    module.show([json.dumps(turn)] * 2, out)
    shown = out.getvalue()
    assert shown.count("[anger 70%]") == 2 and "So what." in shown and "anger=0.7" in shown
    said = (EXAMPLES / "bad_day.txt").read_text(encoding="utf-8").splitlines()
    assert len(said) == 5 and all(line.strip() for line in said)
