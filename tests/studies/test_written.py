"""Written prompts in a model, against the Circuit page's session and a run with hooks by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from backend.core.heads import Head, Site
from backend.engine.hooks import edited_head_outputs, record_head_outputs
from backend.methods.requests import N_REFERENCE
from backend.models.loaded_models import load
from backend.studies import session, written
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Intervention, Mode, Reading, Setting
from backend.tasks.written import Written, encode, written_as
from tests import tiny

PROMPTS = Prompts(ENTITY_TRACKING, 6, 0, (3,))
OFF = frozenset({Site(Head(2, 1), "last"), Site(Head(0, 2), "prev_query_label")})
SHORT = "The apple is in Box F. Box F contains the"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("tiny")
    tiny.llama().save_pretrained(folder)
    tiny.word_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("mode", [Mode.mean, Mode.zero, Mode.counterfactual])
def test_the_tasks_own_prompt_is_answered_as_on_the_circuit_page(model: str, mode: Mode) -> None:
    prepared = session.prepare(Setting(model, PROMPTS), lambda *_: None)
    off = Intervention(Reading.model, mode, frozenset(), OFF)
    expected = session.answers(prepared, off)
    tokenizer = prepared.loaded.tokenizer
    other = ENTITY_TRACKING.counterfactual(tokenizer, prepared.prompts)
    for row in range(len(prepared.prompts)):
        prompt = written_as(prepared.prompts, row, tokenizer)
        second = written_as(other, row, tokenizer)
        found = written.answers(model, PROMPTS, prompt, OFF, mode, second)
        for name in ("probability", "logit_difference"):
            theirs = getattr(expected, name)[row]
            np.testing.assert_allclose(getattr(found, name)[0], theirs, rtol=1e-4, atol=1e-6)
        assert found.rank[0] == expected.rank[row]
        whole = written.run(model, ENTITY_TRACKING, prompt).whole
        np.testing.assert_allclose(whole.probability[0], prepared.whole.probability[row], rtol=1e-4)


def test_in_a_shorter_text_heads_give_their_means_at_tokens_of_the_same_name(model: str) -> None:
    loaded = load(model)
    prompt = ENTITY_TRACKING.read(SHORT)
    assert isinstance(prompt, Written)
    one = encode(loaded.tokenizer, ENTITY_TRACKING, prompt)
    reference = PROMPTS.reference(loaded.tokenizer, N_REFERENCE)
    by_token = record_head_outputs(loaded.model, torch.tensor(reference.input_ids)).mean(1)

    def edit(layer: int, heads: torch.Tensor) -> torch.Tensor:
        heads = heads.clone()
        for (of, index), position in OFF:
            if of == layer:
                at = torch.tensor(reference.positions[position])
                heads[0, one.positions[position][0], index] = by_token[layer, at, index].mean(0)
        return heads

    with torch.no_grad(), edited_head_outputs(loaded.model, edit):
        logits = loaded.model(torch.tensor(one.input_ids)).logits[0, -1]
    found = written.answers(model, PROMPTS, prompt, OFF, Mode.mean)
    expected = logits.softmax(-1)[one.answer_ids[0]].item()
    np.testing.assert_allclose(found.probability[0], expected, rtol=1e-4)
    assert not written.is_mean_of_token(written.run(model, ENTITY_TRACKING, prompt), PROMPTS)


def test_the_likeliest_words_are_the_models(model: str) -> None:
    loaded = load(model)
    ids = loaded.tokenizer(SHORT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = loaded.model(ids).logits[0, -1].softmax(-1).sort(descending=True)
    found = written.continuations(model, SHORT)
    np.testing.assert_allclose(
        [probability for _, probability in found], expected.values[: len(found)], rtol=1e-4
    )
    assert found[0][0] == loaded.tokenizer.decode([int(expected.indices[0])])


def test_a_head_attends_as_transformers_says(model: str) -> None:
    loaded = load(model)
    prompt = ENTITY_TRACKING.read(SHORT)
    assert isinstance(prompt, Written)
    ids = torch.tensor(encode(loaded.tokenizer, ENTITY_TRACKING, prompt).input_ids)
    loaded.model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = torch.stack(loaded.model(ids, output_attentions=True).attentions)[:, 0]
    np.testing.assert_allclose(
        written.attention(model, ENTITY_TRACKING, prompt), expected.numpy(), atol=1e-5
    )
