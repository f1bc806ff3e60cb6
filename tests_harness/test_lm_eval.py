"""The default model's anger in lm-evaluation-harness: the log-likelihoods that we get."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import affectlens as al
from affectlens.cli import app
from affectlens.models.registry import pull
from affectlens.steering.packs.names import existing
from tests_harness.environment import BIN, MODEL, PACK, run

SPEC = "anger=1;mode=residual;positions=all"
CHOICES = ("I am furious and I will not put up with this.", "What a lovely day this is for me.")
QUESTIONS = (
    "My train was cancelled and nobody told me.",
    "The neighbour plays music all night.",
    "Someone took my seat while I fetched a book.",
    "They lost my luggage again.",
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[list[float]]:
    """Log-likelihood of every choice after every question, by the harness."""
    folder = tmp_path_factory.mktemp("harness")
    vectors = folder / "anger.pt"
    asked = ["export", "-e", "anger=1", "--mode", "residual", "--format", "lm-eval"]
    done = CliRunner().invoke(app, [*asked, "--pack", PACK, "--out", str(vectors)])
    assert done.exit_code == 0, done.output
    rows = [{"question": one, "choices": list(CHOICES), "answer": 0} for one in QUESTIONS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "feeling",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "feeling.yaml").write_text(json.dumps(task))  # JSON is YAML
    model = f"pretrained={pull(MODEL)},steer_path={vectors},dtype=float32"
    command = [BIN / "lm_eval", "--model", "steered", "--model_args", model, "--tasks", "feeling"]
    command += ["--include_path", folder, "--output_path", folder / "out", "--log_samples"]
    run([*command, "--device", "cpu", "--batch_size", "3"], folder)
    (samples,) = (folder / "out").rglob("samples_feeling_*.jsonl")
    found = [json.loads(line) for line in samples.read_text().splitlines()]
    found.sort(key=lambda one: one["doc_id"])
    return [[float(choice[0]) for choice in one["filtered_resps"]] for one in found]


def loglikelihoods(model: Any) -> list[list[float]]:
    """The same, one text at a time, as the model is just now."""
    found: list[list[float]] = []
    for question in QUESTIONS:
        begin = model.tokenizer(question)["input_ids"]
        found.append([])
        for choice in CHOICES:
            ids = torch.tensor([model.tokenizer(f"{question} {choice}")["input_ids"]])
            assert ids[0, : len(begin)].tolist() == begin
            logits = model.hf(input_ids=ids, use_cache=False).logits.log_softmax(-1)
            steps = logits[0, :-1].gather(-1, ids[0, 1:, None])
            found[-1].append(float(steps[len(begin) - 1 :].sum()))
    return found


def test_the_harness_gets_our_numbers(told: list[list[float]]) -> None:
    model = al.load_model(MODEL, dtype="float32", device="cpu")
    pack = al.SteeringPack.load(existing(PACK))
    with torch.no_grad():
        plain = loglikelihoods(model)
        with pack.steer(model, SPEC):
            ours = loglikelihoods(model)
    theirs = torch.tensor(told)
    torch.testing.assert_close(theirs, torch.tensor(ours), atol=2e-3, rtol=0)
    assert (theirs - torch.tensor(plain)).abs().max() > 1
