"""The judges: accuracy on groups they never saw, refusal of garbled text, blindness."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from affectlens import datasets
from affectlens.core import EMOTIONS, ArtefactError, DataError, MismatchError, UnknownNameError
from affectlens.evaluation.judges import (
    CORRUPTIONS,
    GARBLED,
    HELD_OUT,
    JUDGED,
    TRAINED,
    EncoderJudge,
    Judge,
    LexiconJudge,
    agreement,
    judge_fingerprint,
    judge_report,
    load_judge,
    refusal_report,
)
from affectlens.evaluation.judges.adapter import (
    JudgeAdapter,
    LowRankDelta,
    insert_low_rank,
    merge,
)
from affectlens.evaluation.judges.base import Verdicts
from affectlens.evaluation.judges.encoder import load_encoder, shipped_adapter
from affectlens.evaluation.judges.encoder_identity import encoder_fingerprint
from affectlens.evaluation.judges.fitting import fit_judge
from affectlens.evaluation.judges.garbling import cut_short, garble
from affectlens.evaluation.judges.leave_one_out import leave_one_source_out, read_source
from affectlens.evaluation.judges.lexicon import Lexicon, is_loop, words_of
from affectlens.evaluation.judges.model_texts import main as write_model_texts
from affectlens.evaluation.judges.model_texts import model_texts, requests
from affectlens.evaluation.judges.report import (
    confusion,
    long_text_report,
    permutation_chance,
)
from affectlens.evaluation.judges.training_data import (
    CLEAR_COMMENTS,
    SOURCES,
    Example,
    FitSettings,
    TrainingSet,
    extra_texts,
    small_model_texts,
    training_set,
    unnamed_texts,
)
from affectlens.evaluation.judges.training_epochs import epoch_examples
from affectlens.evaluation.judges.windows import (
    Reading,
    Windows,
    mean_pooled,
    pooled_log_probabilities,
    windows_of,
)
from affectlens.evaluation.naming import mask_feelings
from tests.tiny_run import save_encoder

PLAIN = [
    "The office opens at nine and closes at five.",
    "I am so happy for you, this is wonderful news, and we must celebrate tonight.",
    "How dare he take the credit for my work? I am furious with the whole lot of them.",
    "Something is moving behind the door and my hands will not stop shaking.",
    "He is gone, and the house is so quiet that I cry every evening.",
    "Yuck, the milk had turned to green slime and the smell made me gag.",
    "Wait, what? I never expected to see you here, of all places.",
]
FLOORS = {"replies": 0.85, "tones": 0.83, "implicit": 0.68, "vignettes": 0.75}
LATE = 0.5
TONES_OF_PLAIN = ("neutral", "happiness", "anger", "fear", "sadness", "disgust", "surprise")


@pytest.fixture(scope="session")
def encoder_folder() -> Path:
    from affectlens.models.registry import pull

    return pull("minilm")


@pytest.fixture(scope="module")
def judge(encoder_folder: Path) -> EncoderJudge:
    return EncoderJudge.load(encoder=encoder_folder)


@pytest.fixture(scope="module")
def unseen() -> dict[str, datasets.Corpus]:
    return {name: datasets.load(name).filter(role="test") for name in ("replies", "tones")}


@pytest.fixture(scope="module")
def unnamed() -> dict[str, datasets.Corpus]:
    """Texts without a word for a feeling, of groups and of a kind that the judge has not seen."""
    return {name: datasets.load(name).filter(role="test") for name in ("implicit", "vignettes")}


@pytest.mark.model
class TestEncoderJudge:
    def test_accuracy_on_unseen_groups_is_as_documented(self, judge, unseen, unnamed):
        report = judge_report(judge, {**unseen, **unnamed})
        documented = shipped_adapter().facts["corpora"]
        for name, found in report["corpora"].items():
            assert found["accuracy"] >= FLOORS[name]
            # Another CPU may round a borderline text the other way, no more.
            assert found["accuracy"] == pytest.approx(documented[name]["accuracy"], abs=0.02)
            assert found["called_garbled"] <= 0.03
            assert np.sum(found["confusion"]) == found["n"] == len({**unseen, **unnamed}[name])

    def test_people_s_texts_are_scored_as_arms_are(self, judge, unseen):
        """By the functions that measure arms, on the same texts as if they were replies."""
        corpus = unseen["replies"].filter(emotion=EMOTIONS)
        found = judge_report(judge, {"replies": unseen["replies"]})["corpora"]["replies"]["as_arm"]
        masked = [mask_feelings(record.text) for record in corpus]
        for name, texts in (
            ("accuracy", [record.text for record in corpus]),
            ("masked_accuracy", masked),
        ):
            verdicts = judge([text or "." for text in texts]).chosen
            hits = [
                bool(text) and said == record.emotion
                for text, said, record in zip(texts, verdicts, corpus, strict=True)
            ]
            assert found[name] == pytest.approx(np.mean(hits))
        assert found["masked_accuracy"] == pytest.approx(0.76, abs=0.02)  # as judging.md says

    def test_happiness_is_heard_without_a_happy_word(self, judge, unnamed):
        found = judge_report(judge, unnamed)["corpora"]
        assert found["vignettes"]["recall"]["happiness"] >= 0.5
        assert found["implicit"]["recall"]["happiness"] >= 0.4

    def test_clumsy_and_cut_text_is_not_refused(self, judge, unseen):
        rng = random.Random(0)
        clumsy = [r.text for r in unseen["tones"].filter(theme="smallmodel")]
        cut = [cut_short(record.text, rng) for record in unseen["replies"]]
        for texts in (clumsy, cut):
            assert np.mean([said == GARBLED for said in judge(texts).chosen]) <= 0.03

    def test_garbled_text_has_no_emotion(self, judge, unseen):
        texts = [record.text for corpus in unseen.values() for record in corpus]
        pieces = sorted({word for text in texts for word in text.split()})
        report = refusal_report(judge, texts, n=180, seed=99, pieces=pieces)
        assert set(report["trained"]["by_kind"]) == set(TRAINED)
        assert set(report["held_out"]["by_kind"]) == set(HELD_OUT)
        assert report["trained"]["emotion_found"] <= 0.1
        assert report["held_out"]["emotion_found"] == report["emotion_found"] <= 0.1

    @pytest.mark.parametrize(
        "text",
        [
            "angry angry angry angry angry angry",
            "I am so so so so so so so so so so so so so so",
            "- - - - - - - - - - - - - - - - - -",
            "FURIOUS! FURIOUS! FURIOUS! FURIOUS! FURIOUS! FURIOUS!",
            "",
            "   ",
        ],
    )
    def test_degenerate_text_is_garbled(self, judge, text):
        assert judge([text]).chosen == (GARBLED,)

    def test_plain_sentences(self, judge):
        assert judge(PLAIN).chosen == TONES_OF_PLAIN

    def test_verdict_depends_on_the_text_alone(self, judge, unseen):
        texts = [*[record.text for record in unseen["replies"]][:60], "short", "a " * 90]
        together = judge(texts).probabilities
        order = random.Random(1).sample(range(len(texts)), len(texts))
        shuffled = judge([texts[i] for i in order]).probabilities
        assert np.abs(together[order] - shuffled).max() < 1e-4
        alone = np.concatenate([judge([text]).probabilities for text in texts[::6]])
        assert np.abs(together[::6] - alone).max() < 1e-4

    def test_rows_are_distributions(self, judge):
        verdicts = judge(PLAIN)
        assert verdicts.labels == JUDGED
        assert verdicts.probabilities.shape == (len(PLAIN), len(JUDGED))
        assert np.allclose(verdicts.probabilities.sum(1), 1)
        assert len(judge([])) == 0
        assert isinstance(judge, Judge)

    def test_merged_equals_the_low_rank_computation(self, judge, encoder_folder):
        adapter = shipped_adapter()
        encoder, tokenizer = load_encoder(encoder_folder)
        rank = next(iter(adapter.deltas.values())).down.shape[0]
        inserted = insert_low_rank(encoder, rank)
        assert set(inserted) == set(adapter.deltas)
        for name, module in inserted.items():
            module.down.data = adapter.deltas[name].down.float()
            module.up.data = adapter.deltas[name].up.float()
        batch = tokenizer(PLAIN, padding=True, return_tensors="pt")
        with torch.inference_mode():
            pooled = mean_pooled(encoder(**batch).last_hidden_state, batch["attention_mask"])
        expected = (pooled @ adapter.head_weight.T + adapter.head_bias).softmax(-1)
        assert np.allclose(judge(PLAIN).probabilities, expected.numpy(), atol=1e-5)

    def test_the_adapter_matters(self, judge, encoder_folder):
        encoder, tokenizer = load_encoder(encoder_folder)
        adapter = shipped_adapter()
        plain = EncoderJudge(encoder, tokenizer, replace(adapter, deltas={}))
        gap = np.abs(judge(PLAIN).probabilities - plain(PLAIN).probabilities).max()
        assert gap > 0.1

    def test_a_short_fit_learns_and_repeats(self, encoder_folder, tmp_path):
        authored = [Example(t, tone) for t, tone in zip(PLAIN, TONES_OF_PLAIN, strict=True)]
        data = TrainingSet(authored, {})
        brief = FitSettings(rank=2, epochs=1, authored_repeats=2, garbled=4, long_texts=4)
        adapter, again = (fit_judge(encoder_folder, data, brief) for _ in range(2))
        assert torch.equal(adapter.head_weight, again.head_weight)
        assert adapter.fingerprint == again.fingerprint
        other = fit_judge(encoder_folder, data, replace(brief, seed=1))
        assert not torch.equal(adapter.head_weight, other.head_weight)
        longer = replace(brief, authored_repeats=36, learning_rate=3e-3, garbled=24)
        fit_judge(encoder_folder, data, longer).save(tmp_path / "fitted.safetensors")
        fitted = EncoderJudge.load(tmp_path / "fitted.safetensors", encoder_folder)
        assert sum(a == b for a, b in zip(fitted(PLAIN).chosen, TONES_OF_PLAIN, strict=True)) >= 4


FILLER = "The office opens at nine and closes at five, and the bus stops in front of the gate. "
OUTBURST = "I am furious with them. How dare they lie to me again! I hate every one of these liars."


@pytest.mark.model
class TestReading:
    """A text of any length is read to its end, by windows, as when the judge was fitted."""

    @pytest.mark.parametrize("n_fillers", [6, 12, 40])
    def test_what_comes_late_is_read(self, judge, n_fillers):
        plain = FILLER * n_fillers
        assert len(judge.tokenizer(plain, verbose=False)["input_ids"]) > 96
        assert judge([plain, plain + OUTBURST]).chosen == ("neutral", "anger")

    def test_collapse_at_the_end_is_read(self, judge):
        assert judge([FILLER * 8 + "angry " * 60]).chosen == (GARBLED,)

    def test_nothing_is_left_unread(self, judge):
        long = FILLER * 45
        before = judge([long]).probabilities
        words = long.split()
        for place in (5, 200, 500, len(words) - 1):
            changed = " ".join([*words[:place], "disgusting", *words[place:]])
            assert np.abs(judge([changed]).probabilities - before).max() > 1e-5

    def test_windows_hold_every_token_once_in_order(self, judge):
        texts = ["", "short", FILLER * 3, FILLER * 45, "x " * 126, "x " * 127]
        found = windows_of(judge.tokenizer, texts, 128)
        for index, text in enumerate(texts):
            whole = judge.tokenizer(text, verbose=False)["input_ids"]
            mine = [
                row for owner, row in zip(found.owner, found.ids, strict=True) if owner == index
            ]
            assert [token for row in mine for token in row[1:-1]] == whole[1:-1]
            assert all(row[0] == whole[0] and row[-1] == whole[-1] for row in mine)
            sizes = [len(row) for row in mine]
            assert max(sizes) <= 128
            assert max(sizes) - min(sizes) <= 1
            assert len(mine) == max(1, int(np.ceil((len(whole) - 2) / 126)))

    def test_long_text_by_hand(self, judge):
        text = FILLER * 9 + OUTBURST + " " + FILLER * 5
        adapter, ids = judge.adapter, judge.tokenizer(text, verbose=False)["input_ids"][1:-1]
        how = adapter.reading
        parts = -(-len(ids) // (how.window - 2))
        assert parts > 1
        neutral = adapter.labels.index("neutral")
        mixed, total = np.zeros(len(adapter.labels)), 0.0
        for index in range(parts):
            part = ids[len(ids) * index // parts : len(ids) * (index + 1) // parts]
            row = torch.tensor([[101, *part, 102]])
            with torch.inference_mode():
                hidden = judge.encoder(input_ids=row).last_hidden_state[0].mean(0)
            said = (adapter.head_weight @ hidden + adapter.head_bias).softmax(-1).numpy()
            weight = len(part) * (how.floor + 1 - said[neutral]) ** how.sharpness
            mixed, total = mixed + weight * said, total + weight
        assert np.abs(judge([text]).probabilities[0] - mixed / total).max() < 1e-4

    def test_unseen_emotion_behind_plain_text(self, judge, unseen):
        found = long_text_report(judge, unseen["replies"], n=24, words=(150,))
        assert found["150"] >= LATE


def test_pooling_against_a_loop():
    rng = np.random.default_rng(0)
    labels = ("anger", "neutral", "fear")
    logits = torch.tensor(rng.normal(size=(7, 3)) * 4, dtype=torch.float64)
    how = Reading(window=128, floor=0.1, sharpness=3.0)
    owner = torch.tensor([0, 1, 1, 1, 2, 3, 3])
    ids = [[0] * (2 + n) for n in (5, 10, 10, 9, 0, 126, 125)]
    found = pooled_log_probabilities(logits, Windows(ids, owner, 4), labels, how).exp().numpy()
    for text in range(4):
        mixed, total = np.zeros(3), 0.0
        for row in np.flatnonzero(owner.numpy() == text):
            each = np.exp(logits[row].numpy()) / np.exp(logits[row].numpy()).sum()
            weight = max(1, len(ids[row]) - 2) * (0.1 + 1 - each[1]) ** 3
            mixed, total = mixed + weight * each, total + weight
        assert found[text] == pytest.approx(mixed / total, abs=1e-12)
    assert found[0] == pytest.approx(logits[0].softmax(-1).numpy())
    extreme = torch.tensor([[900.0, 0, 0], [0, 900.0, 0]], requires_grad=True)
    pooled = pooled_log_probabilities(
        extreme, Windows(ids[:2], owner[:1].repeat(2), 1), labels, how
    )
    pooled[0, 0].backward()
    assert pooled.exp().sum().item() == pytest.approx(1)
    assert bool(extreme.grad.isfinite().all())


@pytest.mark.model
class TestBinding:
    """An adapter is read on the encoder it was fitted on, and on no other of the same shape."""

    @pytest.fixture
    def parts(self, encoder_folder):
        return load_encoder(encoder_folder)

    @staticmethod
    def _scaled(name):
        def change(encoder, tokenizer):
            encoder.get_parameter(name).data.mul_(1.01)

        return change

    @staticmethod
    def _one_value(encoder, tokenizer):
        encoder.encoder.layer[3].output.dense.weight.data[200, 700] += 1e-3

    @staticmethod
    def _epsilon(encoder, tokenizer):
        encoder.config.layer_norm_eps = 1e-5

    @staticmethod
    def _swapped_words(encoder, tokenizer):
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        words = state["model"]["vocab"]
        words["anger"], words["joy"] = words["joy"], words["anger"]
        tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(state))

    @staticmethod
    def _cased(encoder, tokenizer):
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        state["normalizer"]["lowercase"] = False
        tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(state))

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(_scaled("embeddings.position_embeddings.weight"), id="embeddings"),
            pytest.param(_scaled("encoder.layer.5.attention.output.LayerNorm.bias"), id="norm"),
            pytest.param(_one_value, id="one value"),
            pytest.param(_epsilon, id="epsilon"),
            pytest.param(_swapped_words, id="vocabulary"),
            pytest.param(_cased, id="case"),
        ],
    )
    def test_another_encoder_of_the_same_shape_is_refused(self, parts, change):
        encoder, tokenizer = parts
        getattr(change, "__func__", change)(encoder, tokenizer)
        with pytest.raises(MismatchError, match="fitted on another encoder") as refusal:
            EncoderJudge(encoder, tokenizer, shipped_adapter())
        assert str(refusal.value).count(". ") == 0

    def test_a_folder_with_another_encoder_is_refused(self, parts, tmp_path):
        encoder, tokenizer = parts
        encoder.encoder.layer[0].intermediate.dense.weight.data.neg_()
        encoder.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        with pytest.raises(MismatchError, match="use the plain encoder it was fitted on"):
            EncoderJudge.load(encoder=tmp_path)

    def test_an_encoder_is_not_adapted_twice(self, parts):
        EncoderJudge(*parts, shipped_adapter())
        with pytest.raises(MismatchError, match="plain encoder"):
            EncoderJudge(*parts, shipped_adapter())

    def test_a_copy_of_the_folder_is_the_same_encoder(self, parts, tmp_path):
        encoder, tokenizer = parts
        before = encoder_fingerprint(encoder, tokenizer)
        tokenizer(PLAIN, padding=True, truncation=True, max_length=8)  # leaves its state behind
        encoder.save_pretrained(tmp_path, max_shard_size="20MB")
        tokenizer.save_pretrained(tmp_path)
        assert encoder_fingerprint(*load_encoder(tmp_path)) == before
        assert encoder_fingerprint(encoder, tokenizer) == before


class TestFingerprint:
    @pytest.mark.model
    def test_tells_a_judge_without_its_encoder(self, judge):
        assert judge_fingerprint("encoder") == judge.fingerprint
        assert judge_fingerprint("lexicon") == LexiconJudge().fingerprint
        with pytest.raises(UnknownNameError):
            judge_fingerprint("enkoder")

    def test_covers_all_that_a_verdict_depends_on(self, tmp_path):
        adapter = shipped_adapter()
        name = sorted(adapter.deltas)[3]
        delta = adapter.deltas[name]
        nudged = delta.up.clone()
        nudged[0, 0] += 0.25
        others = [
            replace(adapter, head_bias=adapter.head_bias + 1e-3),
            replace(adapter, deltas={**adapter.deltas, name: LowRankDelta(delta.down, nudged)}),
            replace(adapter, labels=adapter.labels[::-1]),
            replace(adapter, reading=replace(adapter.reading, window=65)),
            replace(adapter, reading=replace(adapter.reading, sharpness=1.5)),
            replace(adapter, provenance=replace(adapter.provenance, model="0" * 16)),
        ]
        assert len({adapter.fingerprint, *(other.fingerprint for other in others)}) == 7
        adapter.save(tmp_path / "copy.safetensors")
        assert JudgeAdapter.load(tmp_path / "copy.safetensors").fingerprint == adapter.fingerprint

    def test_covers_the_words(self):
        one, two = Lexicon.parse("[anger]\nfurious"), Lexicon.parse("[fear]\nfurious")
        assert LexiconJudge(one).fingerprint != LexiconJudge(two).fingerprint
        assert LexiconJudge(one).fingerprint == LexiconJudge(one).fingerprint


class TestAdapterFile:
    def test_is_small_and_says_what_made_it(self):
        from importlib.resources import files

        path = files("affectlens.evaluation.judges") / "adapter.safetensors"
        assert len(path.read_bytes()) <= 3_000_000
        adapter = shipped_adapter()
        assert adapter.labels == JUDGED
        assert dict(adapter.provenance.parameters) == asdict(FitSettings())
        assert adapter.reading == FitSettings().reading
        assert len(adapter.provenance.model) == len(adapter.provenance.corpus) == 16
        assert adapter.facts["corpora"]["replies"]["accuracy"] >= FLOORS["replies"]
        assert adapter.facts["across"]["goemotions"]["accuracy"] > 0.4
        assert adapter.facts["refusals"]["held_out"]["emotion_found"] <= 0.1
        assert set(adapter.facts["refusals"]["held_out"]["by_kind"]) == set(HELD_OUT)

    def test_round_trip(self, tmp_path):
        shipped_adapter().save(tmp_path / "copy.safetensors")
        copy = JudgeAdapter.load(tmp_path / "copy.safetensors")
        assert copy.facts == shipped_adapter().facts
        for name, delta in shipped_adapter().deltas.items():
            assert torch.equal(delta.dense(), copy.deltas[name].dense())

    def test_cut_short_is_refused(self, tmp_path):
        shipped_adapter().save(tmp_path / "cut.safetensors")
        whole = (tmp_path / "cut.safetensors").read_bytes()
        (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ArtefactError, match="cut short or damaged"):
            EncoderJudge.load(tmp_path / "cut.safetensors")

    def test_other_artefacts_and_missing_tensors_are_refused(self, tmp_path):
        from affectlens.core import Provenance
        from affectlens.core.artefact import write_tensors

        write_tensors(tmp_path / "x", {"a": torch.zeros(1)}, Provenance(kind="pack"))
        with pytest.raises(MismatchError, match="not a judge adapter"):
            JudgeAdapter.load(tmp_path / "x")
        write_tensors(tmp_path / "y", {"a": torch.zeros(1)}, Provenance(kind="judge adapter"))
        with pytest.raises(ArtefactError, match="fit the judge again"):
            JudgeAdapter.load(tmp_path / "y")

    def test_an_adapter_for_another_encoder_is_refused(self):
        encoder = torch.nn.ModuleDict(
            {"encoder": torch.nn.ModuleDict({"q": torch.nn.Linear(4, 4)})}
        )
        delta = LowRankDelta(torch.ones(1, 3), torch.ones(4, 1))
        with pytest.raises(MismatchError, match="use the encoder it was fitted on"):
            merge(encoder, {"encoder.q": delta})

    def test_an_empty_encoder_folder_is_refused(self, tmp_path):
        from affectlens.core import ModelError

        with pytest.raises(ModelError, match="no sentence encoder"):
            load_encoder(tmp_path)


class TestWhoSawWhat:
    def test_training_texts_come_from_judge_and_tune_groups_only(self):
        comments = _comments()
        corpora = [datasets.load(name) for name in ("replies", "implicit", "tones")]
        data = training_set(corpora, comments)
        used = {example.text for example in data.authored}
        for corpus in corpora:
            for record in corpus:
                assert (record.text in used) == (record.role in ("judge", "tune"))

    def test_ambiguous_comments_are_refused(self):
        with pytest.raises(DataError, match="mapping='original'"):
            training_set([datasets.load("replies")], _comments(["curiosity"]))

    def test_epochs_differ_and_repeat(self):
        data = TrainingSet([Example(PLAIN[1], "happiness"), *extra_texts()[:20]], {})
        first = epoch_examples(data, FitSettings(garbled=20), 0, ["ab", "##c"])
        assert first == epoch_examples(data, FitSettings(garbled=20), 0, ["ab", "##c"])
        assert first != epoch_examples(data, FitSettings(garbled=20), 1, ["ab", "##c"])
        assert sum(example.label == GARBLED for example in first) >= 20

    def test_held_out_kinds_never_enter_training(self, monkeypatch):
        def seen(_draft):
            raise AssertionError("a held-out kind was trained on")

        for kind in HELD_OUT:
            monkeypatch.setitem(CORRUPTIONS, kind, seen)
        data = TrainingSet(extra_texts(), {})
        drawn = epoch_examples(data, FitSettings(garbled=200), 0, ["ab", "##c"])
        assert sum(example.label == GARBLED for example in drawn) >= 200
        with pytest.raises(AssertionError, match="trained on"):
            garble(PLAIN, 30, seed=0, pieces=["ab"], kinds=tuple(CORRUPTIONS))

    def test_long_texts_keep_the_label_of_what_they_hold(self):
        authored = [Example(t, tone) for t, tone in zip(PLAIN, TONES_OF_PLAIN, strict=True)]
        settings = FitSettings(garbled=16, long_texts=40, authored_repeats=1)
        drawn = epoch_examples(TrainingSet(authored, {}), settings, 0, ["ab", "##c"])
        long = [example for example in drawn if len(example.text.split()) >= 40]
        tones = {example.label for example in long}
        assert {"neutral", "anger", GARBLED} <= tones
        assert max(len(example.text.split()) for example in long) > 150
        for example in long:
            if example.label == "anger":
                assert "dare he take" in example.text.lower()

    def test_replies_of_the_small_model_can_be_audited(self):
        """Each says what was asked, of whom, and who labelled it; none is of a test group."""
        events = {event.id: event for event in datasets.load("events")}
        rows = model_texts()
        asked = {row.id: replace(row, text="", label=None, how_labelled="") for row in rows}
        assert len(asked) == len(rows)
        assert asked == {request.id: request for request in requests()}
        for row in rows:
            event = events[row.event]
            assert event.role == row.role
            assert row.role in ("judge", "tune")
            assert row.prompt == event.text
            assert row.label in (*JUDGED, None)
            assert row.how_labelled
            assert row.text.strip()
            assert (row.emotion in EMOTIONS) == (row.mode == "prompted")
        decided = [row.label for row in rows if row.label is not None]
        assert [example.label for example in small_model_texts()] == decided

    def test_made_again_they_keep_labels_while_the_text_is_the_same(self, tmp_path, monkeypatch):
        rows = model_texts()
        made = [replace(row, label=None, how_labelled="") for row in rows]
        made[3] = replace(made[3], text="Another reply.")
        monkeypatch.setattr(f"{model_texts.__module__}.generated", lambda: made)
        write_model_texts(["--out", str(tmp_path / "again.jsonl")])
        again = [json.loads(line) for line in (tmp_path / "again.jsonl").open(encoding="utf-8")]
        assert again[3]["label"] is None
        assert [r["label"] for r in again[4:]] == [row.label for row in rows[4:]]

    def test_texts_written_for_the_judge(self):
        for texts in (extra_texts(), unnamed_texts()):
            assert {example.label for example in texts} == set(JUDGED) - {GARBLED}
            assert len({example.text for example in texts}) == len(texts)
        vignettes = {record.text for record in datasets.load("vignettes")}
        assert not vignettes & {example.text for example in unnamed_texts()}
        assert {r.text for r in unnamed_texts() if mask_feelings(r.text) != r.text} == set()

    def test_a_source_is_held_out_as_a_whole(self):
        data = _every_source()
        assert set(SOURCES) == {name for name in SOURCES if data.of(name)}
        whole = {name: {example.text for example in data.of(name)} for name in SOURCES}
        for name in SOURCES:
            left = data.without(name)
            assert not left.of(name)
            drawn = {e.text for other in SOURCES for e in left.of(other)}
            assert drawn == set().union(*(whole[other] for other in SOURCES if other != name))

    def test_feeling_words_are_masked_by_chance(self):
        texts = ["I am furious that they closed the gate before ten.", "Furious."]
        data = TrainingSet([Example(text, "anger") for text in texts], {})
        plain = FitSettings(garbled=0, long_texts=0, authored_repeats=40, masked=0.0)
        shown = {e.text.lower() for e in epoch_examples(data, plain, 0, ["a"])}
        assert all("furious" in text for text in shown)
        masked = epoch_examples(data, replace(plain, masked=1.0), 0, ["a"])
        long = [e.text.lower() for e in masked if len(e.text.split()) > 2]
        assert long and not any("furious" in text for text in long)
        assert any(e.text.lower().startswith("furious") for e in masked)  # nothing would be left
        half = epoch_examples(data, replace(plain, masked=0.5), 0, ["a"])
        share = np.mean(["furious" in e.text.lower() for e in half if len(e.text.split()) > 2])
        assert 0.2 < share < 0.8


def _every_source() -> TrainingSet:
    corpora = [datasets.load(name) for name in ("replies", "implicit", "tones")]
    scenes = tuple(
        datasets.Record(e, (datasets.Message("text", f"You meet {e}."),), e, None, e, "s", "fit")
        for e in EMOTIONS
    )
    return training_set(corpora, _comments(), datasets.Corpus("repe", "texts", scenes))


class TestLeaveOneSourceOut:
    def test_scores_by_hand(self):
        labels = ("anger", "anger", "fear", "neutral", GARBLED)
        texts = [Example(str(i), label, "model") for i, label in enumerate(labels)]
        rows = np.full((5, len(JUDGED)), 0.01)
        firsts = ("anger", "neutral", "anger", "neutral", "fear")
        seconds = ("fear", "anger", "fear", "fear", "anger")
        for row, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
            rows[row, JUDGED.index(first)], rows[row, JUDGED.index(second)] = 0.6, 0.3
        found = read_source("model", texts, lambda _t: Verdicts.likeliest(JUDGED, rows))
        assert (found.n, found.six_way) == (3, pytest.approx(2 / 3))
        assert found.recall == {**dict.fromkeys(EMOTIONS), "anger": 1.0, "fear": 0.0}
        assert found.accuracy == pytest.approx(2 / 5)  # b is called neutral, e an emotion
        with pytest.raises(DataError, match="no text that shows an emotion"):
            read_source("model", texts[3:], lambda _t: Verdicts.likeliest(JUDGED, rows[3:]))

    def test_a_judge_is_fitted_without_the_source_that_it_reads(self, tmp_path, monkeypatch):
        from affectlens.evaluation.judges import fitting

        save_encoder(tmp_path)
        fitted: list[TrainingSet] = []

        def fit(folder, data, settings):
            fitted.append(data)
            few = [data.of(name)[0] for name in SOURCES if data.of(name)]
            brief = FitSettings(rank=2, epochs=1, authored_repeats=1, garbled=2, long_texts=0)
            return fit_judge(folder, TrainingSet(few, {}), brief)

        monkeypatch.setattr(fitting, "fit_judge", fit)
        data = _every_source()
        told: list[str] = []
        found = leave_one_source_out(
            tmp_path,
            data,
            sources=("model", "scenarios"),
            on_source=lambda f: told.append(f.source),
        )
        assert told == [f.source for f in found] == ["model", "scenarios"]
        assert [bool(d.of("model")) for d in fitted] == [False, True]
        assert [bool(d.of("scenarios")) for d in fitted] == [True, False]
        assert found[1].n == 6
        with pytest.raises(UnknownNameError, match="scenarios"):
            leave_one_source_out(tmp_path, data, sources=("scenaros",))
        with pytest.raises(DataError, match="no text of the source comments"):
            leave_one_source_out(tmp_path, data.without("comments"), sources=("comments",))


def _comments(fine: list[str] | None = None) -> datasets.Corpus:
    from affectlens.datasets.schema import Message, Record

    labels = fine or [label for fines in CLEAR_COMMENTS.values() for label in fines]
    records = tuple(
        Record(
            label, (Message("text", f"a {label} text"),), label, None, label, "c", "fit",
            {"labels": [label]},
        )
        for label in labels
    )  # fmt: skip
    return datasets.Corpus("goemotions", "texts", records)


class TestGarble:
    @pytest.mark.parametrize("kind", sorted(CORRUPTIONS))
    def test_each_kind_is_seeded_and_changes_the_text(self, kind):
        made = garble(PLAIN, 30, seed=3, pieces=["ab", "##c"], kinds=[kind])
        assert made == garble(PLAIN, 30, seed=3, pieces=["ab", "##c"], kinds=[kind])
        assert made != garble(PLAIN, 30, seed=4, pieces=["ab", "##c"], kinds=[kind])
        assert all(item.text.strip() and item.text not in PLAIN for item in made)

    def test_kinds_take_turns(self):
        kinds = [item.kind for item in garble(PLAIN, 20, seed=0, pieces=["x"])]
        assert kinds == [*TRAINED, *list(TRAINED)[: 20 - len(TRAINED)]]

    def test_no_kind_is_both_trained_on_and_held_out(self):
        assert not set(TRAINED) & set(HELD_OUT)
        assert {*TRAINED, *HELD_OUT} == set(CORRUPTIONS)
        assert not {TRAINED[kind] for kind in TRAINED} & {HELD_OUT[kind] for kind in HELD_OUT}

    def test_unknown_kind(self):
        with pytest.raises(UnknownNameError, match="shuffled"):
            garble(PLAIN, 1, seed=0, pieces=["x"], kinds=["shufled"])

    def test_cut_short_keeps_a_beginning(self):
        rng = random.Random(0)
        text = " ".join(map(str, range(20)))
        for _ in range(50):
            cut = cut_short(text, rng)
            assert text.startswith(cut)
            assert 10 <= len(cut.split()) < 20
        assert cut_short("only four words here", rng) == "only four words here"


class TestLexiconJudge:
    def test_hand_written_sentences(self):
        assert LexiconJudge()(PLAIN).chosen == TONES_OF_PLAIN

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("I am not angry about it.", "neutral"),
            ("Happy and sad at once.", "neutral"),  # a tie
            ("Sad, sad, sad, but happy and delighted.", "happiness"),  # entries count once
            ("I can’t believe it.", "surprise"),
            ("I never saw a sadder face.", "sadness"),
            ("angry " * 12, GARBLED),
            ("!!! ??? --- ###", GARBLED),
            ("", GARBLED),
        ],
    )
    def test_rules(self, text, expected):
        assert LexiconJudge()([text]).chosen == (expected,)

    def test_shares(self):
        verdicts = LexiconJudge()(["I am furious, scared and terrified."])
        assert verdicts.probability("fear")[0] == pytest.approx(2 / 3)
        assert verdicts.probability("anger")[0] == pytest.approx(1 / 3)
        assert verdicts.probability("bliss")[0] == 0

    def test_far_above_chance_on_unseen_groups(self, unseen):
        report = judge_report(LexiconJudge(), unseen)
        assert report["corpora"]["replies"]["accuracy"] > 0.4
        assert report["corpora"]["tones"]["accuracy"] > 0.6

    def test_prefixes_and_phrases(self):
        lexicon = Lexicon.parse("# x\n[anger]\nangr*, how dare\n[fear]\ndare")
        assert lexicon.hits(words_of("How dare you, angrily")) == [
            ("how dare", "anger"),
            ("angr", "anger"),
        ]
        assert lexicon.hits(words_of("I dare you")) == [("dare", "fear")]

    def test_malformed_lexicons_are_refused(self):
        with pytest.raises(ArtefactError, match="before any"):
            Lexicon.parse("angry")
        with pytest.raises(ArtefactError, match="use one of"):
            Lexicon.parse("[bliss]\nblissful")

    def test_good_text_is_no_loop(self, unseen):
        assert not any(is_loop(record.text) for c in unseen.values() for record in c)


class TestReport:
    class Constant:
        name = "constant"
        labels = JUDGED
        fingerprint = "constant"

        def __call__(self, texts):
            chosen = tuple("anger" for _ in texts)
            return Verdicts(JUDGED, chosen, np.eye(len(JUDGED))[np.zeros(len(chosen), int)])

    def test_a_constant_judge_is_at_chance(self, unseen):
        report = judge_report(self.Constant(), unseen)
        assert report["prior"] == 1 / 8
        for found in report["corpora"].values():
            assert found["chance"] == pytest.approx(1 / 7)
            assert found["accuracy"] == pytest.approx(1 / 7)
            assert found["recall"]["anger"] == 1
            assert found["recall"]["fear"] == found["precision"]["fear"] == 0
            assert found["precision"]["anger"] == pytest.approx(1 / 7)
        refused = refusal_report(self.Constant(), PLAIN, n=40, seed=0, pieces=["x"])
        assert refused["trained"]["emotion_found"] == refused["held_out"]["emotion_found"] == 1

    def test_refusal_is_reported_apart_for_kinds_that_were_trained_on(self):
        class Memory(self.Constant):
            """Refuses exactly the texts that training could have shown."""

            def __call__(self, texts):
                known = {g.text for g in garble(PLAIN, 20, seed=5, pieces=["x"])}
                chosen = tuple(GARBLED if text in known else "anger" for text in texts)
                return Verdicts(JUDGED, chosen, np.eye(8)[[JUDGED.index(c) for c in chosen]])

        report = refusal_report(Memory(), PLAIN, n=40, seed=5, pieces=["x"])
        assert report["trained"]["emotion_found"] == 0
        assert report["trained"]["called_garbled"] == 1
        assert report["held_out"]["emotion_found"] == report["emotion_found"] == 1
        assert report["trained"]["n"] == report["held_out"]["n"] == 20

    def test_chance_is_the_mean_over_all_permutations(self):
        truth = ["anger", "anger", "fear", "neutral", "fear", "anger"]
        said = ["anger", "garbled", "fear", "anger", "anger", "sadness"]
        each = [
            np.mean([a == b for a, b in zip(truth, order, strict=True)])
            for order in itertools.permutations(said)
        ]
        assert permutation_chance(truth, said) == pytest.approx(np.mean(each))
        assert permutation_chance(truth, said) != pytest.approx(1 / 8)
        assert permutation_chance([], []) == 0

    def test_long_texts_hold_the_emotion_last(self, unseen):
        class Last(self.Constant):
            """Finds what the last authored text of a long one says."""

            def __call__(self, texts):
                assert all(len(text.split()) > 80 for text in texts)
                chosen = tuple(next(e for t, e in known.items() if x.endswith(t)) for x in texts)
                return Verdicts(JUDGED, chosen, np.eye(8)[[JUDGED.index(c) for c in chosen]])

        known = {record.text: record.emotion for record in unseen["tones"]}
        assert long_text_report(Last(), unseen["tones"], n=12, words=(80,)) == {"80": 1.0}

    def test_confusion_counts(self):
        counts = confusion(["a", "a", "b"], ["a", "b", "b"], ["a", "b"], ["a", "b"])
        assert counts.tolist() == [[1, 1], [0, 1]]

    def test_agreement_is_kappa_as_defined(self):
        class Every(self.Constant):
            name = "every"

            def __call__(self, texts):
                chosen = tuple(JUDGED[i % 3] for i in range(len(texts)))
                return Verdicts(JUDGED, chosen, np.eye(8)[[JUDGED.index(c) for c in chosen]])

        lexicon, constant = LexiconJudge(), self.Constant()
        found = agreement([lexicon, constant, Every()], PLAIN)
        said, other = lexicon(PLAIN).chosen, Every()(PLAIN).chosen
        alike = np.mean([s == o for s, o in zip(said, other, strict=True)])
        chance = sum(np.mean([s == e for s in said]) * other.count(e) / len(said) for e in JUDGED)
        assert found["lexicon/every"]["agree"] == pytest.approx(alike)
        assert found["lexicon/every"]["kappa"] == pytest.approx((alike - chance) / (1 - chance))
        assert found["lexicon/constant"]["kappa"] == pytest.approx(0, abs=1e-9)  # chance alone
        other = self.Constant()
        other.name = "other"
        assert agreement([constant, other], PLAIN)["constant/other"] == {"agree": 1, "kappa": 1}

    def test_unlabelled_corpora_are_refused(self):
        with pytest.raises(DataError, match="filter them out"):
            judge_report(LexiconJudge(), {"events": datasets.load("events")})


def test_load_judge_names_the_choices():
    with pytest.raises(UnknownNameError, match="encoder"):
        load_judge("enkoder")
    assert load_judge("lexicon").name == "lexicon"


def test_emotions_are_the_first_labels():
    assert JUDGED[: len(EMOTIONS)] == EMOTIONS
