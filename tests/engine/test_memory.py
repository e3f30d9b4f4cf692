"""What runs keep is counted before they start, and memory that is full is no traceback."""

from __future__ import annotations

import pytest
import torch

from backend.core.errors import UserError
from backend.engine import memory
from backend.engine.activation_patching import patched_logits, prepare_clean
from backend.engine.architectures import shape_of
from backend.engine.memory import bytes_of_prompt, check_fits, chunks, moved, prompt_batches
from backend.engine.path_patching.scores import path_patching_scores
from backend.engine.positions import all_sites, position_head_outputs
from backend.engine.replay import FullRun
from backend.methods.evaluation import Evaluation
from backend.models.loading import LoadedModel
from backend.studies.session import prepare
from backend.tasks.entity_tracking import (
    ENTITY_TRACKING,
    counterfactual_prompts,
    reference_prompts,
    sample_prompts,
)
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from tests import tiny

TOKENIZER = tiny.word_tokenizer()
PROMPTS = sample_prompts(TOKENIZER, 12, n_boxes=3)
LENGTH = PROMPTS.input_ids.shape[1]


def tensors_of(run: FullRun) -> list[torch.Tensor]:
    return [*run.residuals[1:], *run.context.keys, *run.context.values]


@pytest.mark.parametrize("maker", ["llama", "grouped", "gpt2", "gemma2"])
def test_what_a_run_keeps_is_counted_to_the_byte(maker):
    model = tiny.MAKERS[maker]()
    run = prepare_clean(model, PROMPTS).run
    assert run is not None
    kept = sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(run))
    assert bytes_of_prompt(model, LENGTH)[0] * len(PROMPTS) == kept


def test_chunks_take_the_share_of_what_is_free(monkeypatch):
    model = tiny.llama()
    kept, passing = bytes_of_prompt(model, LENGTH)
    for fitting in (1, 3, 5):
        free = (fitting + 0.5) * (2 * kept + passing) / memory.SHARE
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: int(free))
        batches = prompt_batches(model, 12, LENGTH)
        assert [batch.stop - batch.start for batch in batches[:-1]] == [fitting] * (
            len(batches) - 1
        )
        assert [row for batch in batches for row in range(12)[batch]] == list(range(12))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert chunks(model, 12, LENGTH) == memory.Chunks(1, 1, 0)


def test_the_environment_says_how_many_at_once(monkeypatch):
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "7")
    assert prompt_batches(tiny.llama(), 12, LENGTH) == [slice(0, 7), slice(7, 12)]
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "many")
    with pytest.raises(UserError, match=r"many is not a number of prompts. Choose 1 or more"):
        prompt_batches(tiny.llama(), 12, LENGTH)


def test_chunks_that_wait_elsewhere_answer_as_before(monkeypatch):
    model = tiny.grouped_llama()
    loaded = LoadedModel("tiny", model, TOKENIZER, shape_of(model))
    reference = reference_prompts(TOKENIZER, 6, n_boxes=3)
    parts = [
        frozenset(list(all_sites(loaded.shape, ENTITY_TRACKING.position_names))[::step])
        for step in (2, 3, 5)
    ]

    def answers() -> list:
        evaluation = Evaluation(loaded, PROMPTS, reference)
        twice = [(evaluation.circuit_only(parts), evaluation.ablated(parts)) for _ in range(2)]
        return [evaluation, *twice]

    _, before, _ = answers()
    for n_kept, n_waiting in ((1, 2), (2, 1), (1, 0)):
        plan = memory.Chunks(4, n_kept, n_waiting)
        monkeypatch.setattr("backend.methods.evaluation.chunks", lambda *_, plan=plan: plan)
        evaluation, *after = answers()
        assert len(evaluation._batches) == min(3, n_kept + n_waiting)
        for alone, without in after:
            assert (alone == before[0]).all()
            assert (without == before[1]).all()


def test_everything_of_a_run_can_be_moved():
    clean = prepare_clean(tiny.llama(), PROMPTS)
    away = moved(clean, torch.device("meta"))
    assert away.model is clean.model
    assert {tensor.device.type for tensor in tensors_of(away.run)} == {"meta"}
    assert away.tokens.device.type == "meta"


def test_too_many_prompts_are_refused_before_they_run(monkeypatch):
    model = tiny.llama()
    kept, passing = bytes_of_prompt(model, LENGTH)
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(10.5 * (2 * kept + passing) / 0.8))
    check_fits(model, 10, LENGTH)
    with pytest.raises(UserError, match="Choose at most 10 prompts"):
        check_fits(model, 11, LENGTH)
    with pytest.raises(UserError, match=r"would need about .* GB .*Choose at most"):
        prepare(Setting("base", Prompts(ENTITY_TRACKING, 1000, 0, (7,))), lambda stage, share: None)


def full(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def test_full_memory_ends_in_the_chunk_to_try(monkeypatch):
    model = tiny.llama()
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "6")
    message = "full with 6 prompts at once.*CIRCUIT_EXPLORER_CHUNK=3"
    counterfactual = counterfactual_prompts(TOKENIZER, PROMPTS)
    evaluation = Evaluation(
        LoadedModel("tiny", model, TOKENIZER, shape_of(model)), PROMPTS, PROMPTS
    )
    right = evaluation.whole
    with monkeypatch.context() as broken:
        broken.setattr("backend.methods.evaluation.patched_logits", full)
        with pytest.raises(UserError, match=message):
            evaluation.ablated([()])
        broken.setattr("backend.engine.path_patching.scores._patched_runs", full)
        with pytest.raises(UserError, match=message):
            path_patching_scores(model, PROMPTS, counterfactual, "A")
    assert (evaluation.ablated([()])[0] == right).all()


def test_other_errors_stay_what_they_are(monkeypatch):
    model = tiny.llama()
    with pytest.raises(RuntimeError, match="shape"), memory.memory_errors_explained(model, 3):
        raise RuntimeError("shape mismatch")
    values = position_head_outputs(model, PROMPTS)
    assert patched_logits(prepare_clean(model, PROMPTS), [], values).isfinite().all()
