"""A model that gives NaN: no method, command or page may give a figure from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.commands.cli import main
from backend.core.components import Component
from backend.core.errors import UserError
from backend.core.heads import Head, Site
from backend.core.placement import Dtype, Placement
from backend.engine.architectures import shape_of
from backend.engine.attention import attention_mass
from backend.engine.path_patching.attribution_patching import attributions_of
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import scores_of
from backend.engine.positions import mean_head_outputs, position_head_outputs
from backend.methods.accuracy import accuracy_report
from backend.methods.answering import correctly_answered
from backend.methods.attention import attention
from backend.methods.attention_knockout import AttentionKnockoutRequest, attention_knockout
from backend.methods.cmap import cmap, group_sets, head_map
from backend.methods.compare import compare
from backend.methods.completeness import completeness
from backend.methods.edges import edges
from backend.methods.evaluation import examine
from backend.methods.faithfulness import faithfulness_report
from backend.methods.functions import functions
from backend.methods.logit_attribution import logit_attribution
from backend.methods.logit_lens import logit_lens
from backend.methods.mask_learning import loss_of
from backend.methods.minimality import minimality
from backend.methods.noise import probe
from backend.methods.pairs_patched import examined_pairs
from backend.models import loaded_models
from backend.models.loading import LoadedModel, load_model
from backend.tasks.circuit import Circuit
from backend.tasks.desiderata import Pairs
from backend.tasks.entity_tracking import (
    ENTITY_TRACKING,
    counterfactual_prompts,
    reference_prompts,
    sample_prompts,
)
from backend.tasks.prompts import Prompts
from tests.tiny import llama, word_tokenizer

CIRCUIT = Circuit.of(
    ENTITY_TRACKING,
    {"A": (Head(3, 0),), "B": (Head(2, 1),), "C": (Head(1, 3),), "D": (Head(0, 2),)},
)
TOKENIZER = word_tokenizer()
SITE = Site(Head(3, 0), "last")
REFUSED = r"not finite .* \d+ of \d+ prompts? in float32.* Check its weights"


def model(is_broken: bool = True) -> Any:
    small = llama(attn_implementation="eager").requires_grad_(False)
    if is_broken:
        small.model.layers[2].mlp.down_proj.weight[0, 0] = float("nan")
    return small


def loaded(is_broken: bool = True) -> LoadedModel:
    """As if nobody had looked at it when it was loaded."""
    small = model(is_broken)
    return LoadedModel("broken", small, TOKENIZER, shape_of(small), Placement("cpu"))


def evaluation(is_broken: bool = True) -> Any:
    return examine(loaded(is_broken), Prompts(ENTITY_TRACKING, 6, 0, (3,)))


def pairs() -> RunPairs:
    prompts = sample_prompts(TOKENIZER, 4, n_boxes=3)
    return RunPairs(model(), prompts, counterfactual_prompts(TOKENIZER, prompts))


def two() -> Pairs:
    prompts = sample_prompts(TOKENIZER, 2, n_boxes=3)
    return Pairs(prompts, counterfactual_prompts(TOKENIZER, prompts), prompts.answer_ids)


METHODS: dict[str, Callable[[], Any]] = {
    "accuracy": lambda: accuracy_report(loaded(), Prompts(ENTITY_TRACKING, 6, 0, (3,))),
    "faithfulness": lambda: faithfulness_report(evaluation(), CIRCUIT),
    "choosing prompts": lambda: correctly_answered(loaded(), Prompts(ENTITY_TRACKING, 2, 0, (3,))),
    "path patching A": lambda: scores_of(pairs(), "A"),
    "path patching B": lambda: scores_of(pairs(), "B", [Head(3, 0)]),
    "path patching D": lambda: scores_of(pairs(), "D", [Head(1, 3)]),
    "attribution patching A": lambda: attributions_of(pairs(), "A"),
    "attribution patching D": lambda: attributions_of(pairs(), "D", [Head(1, 3)], steps=1),
    "edges": lambda: edges(pairs(), CIRCUIT, "broken"),
    "dcm": lambda: loss_of(examined_pairs(loaded(), two()), [SITE], torch.ones(1), 0.0),
    "compare": lambda: compare([evaluation()], CIRCUIT, n_random=1),
    "cmap, source": lambda: cmap(evaluation(), evaluation(False), group_sets(CIRCUIT)),
    "cmap, target": lambda: cmap(evaluation(False), evaluation(), group_sets(CIRCUIT)),
    "cmap of keys": lambda: cmap(evaluation(), evaluation(False), group_sets(CIRCUIT), Component.k),
    "head map": lambda: head_map(evaluation(), evaluation(False), ENTITY_TRACKING.position_names),
    "minimality": lambda: minimality(evaluation(), CIRCUIT),
    "completeness": lambda: completeness(evaluation(), CIRCUIT, 1),
    "functions": lambda: functions(evaluation(), CIRCUIT, ENTITY_TRACKING.desideratum("position")),
    "attention": lambda: attention_mass(model(), sample_prompts(TOKENIZER, 4, n_boxes=3)),
    "attention by role": lambda: attention(loaded(), CIRCUIT, Prompts(ENTITY_TRACKING, 6, 0, (3,))),
    "attention knockout": lambda: attention_knockout(
        loaded(),
        AttentionKnockoutRequest(
            ("broken",), Prompts(ENTITY_TRACKING, 6, 0, (3,)), ENTITY_TRACKING.edges
        ),
    ),
    "logit attribution": lambda: logit_attribution(loaded(), Prompts(ENTITY_TRACKING, 6, 0, (3,))),
    "logit lens": lambda: logit_lens(loaded(), Prompts(ENTITY_TRACKING, 6, 0, (3,))),
    "means": lambda: mean_head_outputs(model(), reference_prompts(TOKENIZER, 4, n_boxes=3)),
    "patched values": lambda: position_head_outputs(
        model(), sample_prompts(TOKENIZER, 4, n_boxes=3)
    ),
    "rounding": lambda: probe(loaded(), Prompts(ENTITY_TRACKING, 2, 0, (3,))),
}


@pytest.mark.parametrize("method", METHODS)
def test_no_method_gives_a_figure(method: str) -> None:
    with pytest.raises(UserError, match=REFUSED):
        METHODS[method]()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("broken")
    model().save_pretrained(place)
    TOKENIZER.save_pretrained(place)
    (place / "circuit").write_text(CIRCUIT.to_json())
    return str(place)


@pytest.mark.parametrize(
    "command",
    ["accuracy", "faithfulness", "discover", "compare", "cmap", "minimality", "completeness",
     "edges", "functions"],
)  # fmt: skip
def test_every_command_refuses_it_by_name(
    command: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [folder, folder] if command == "cmap" else [folder]
    circuit = [] if command in ("accuracy", "discover") else ["--circuit", f"{folder}/circuit"]
    assert main([command, *models, "--prompts", "4", "--boxes", "3", *circuit]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert f"“{folder}” gives numbers that are not finite" in err


def test_what_overflows_in_float16_is_refused_there_only(tmp_path: Path) -> None:
    large = llama().requires_grad_(False)
    large.model.embed_tokens.weight *= 3e5
    large.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"in float16.*try bfloat16 or float32"):
        load_model(str(tmp_path), Placement("cpu", Dtype.float16))
    exact = load_model(str(tmp_path), Placement("cpu"))
    with torch.no_grad():
        ids = torch.tensor(sample_prompts(TOKENIZER, 2, n_boxes=3).input_ids)
        assert exact.model(ids).logits.isfinite().all()
    assert str(tmp_path) not in loaded_models.loaded()
