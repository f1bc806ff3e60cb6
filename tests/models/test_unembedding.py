"""`LanguageModel.logits` equals the family's own head on every family."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_models_own_logits(family: str, tiny_model) -> None:
    model = tiny_model(family)
    ids, mask = model.encode_batch([[5, 6, 7, 8], [9, 10]])
    with torch.no_grad():
        own = model.hf(input_ids=ids, attention_mask=mask).logits
        hidden = model.anatomy.base(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(model.logits(hidden), own)


@pytest.mark.parametrize(
    ("name", "value"),
    [("final_logit_softcapping", 2.0), ("logit_scale", 0.25), ("logits_scaling", 4.0)],
)
def test_what_families_do_after_the_matrix(name: str, value: float, tiny_model) -> None:
    from affectlens.models.anatomy.unembedding import unembed

    hf = tiny_model("llama").hf
    plain = unembed(hf, torch.ones(1, hf.config.hidden_size))
    setattr(hf.config, name, value)
    changed = unembed(hf, torch.ones(1, hf.config.hidden_size))
    delattr(hf.config, name)
    expected = {
        "final_logit_softcapping": torch.tanh(plain / 2) * 2,
        "logit_scale": plain * 0.25,
        "logits_scaling": plain / 4,
    }[name]
    torch.testing.assert_close(changed, expected)
