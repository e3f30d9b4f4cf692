"""Path patching in which few tokens run again: plain runs in which all others stay as they were."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.kept import Folder
from backend.core.metrics import Score
from backend.engine.architectures import logits_of, shape_of
from backend.engine.path_patching.few_tokens import few_tokens
from backend.engine.path_patching.quick import quick_scores_of
from backend.engine.path_patching.receivers_runs import receivers_runs
from backend.engine.path_patching.run_pairs import RunPair, RunPairs, scenes
from backend.engine.path_patching.scores import RECEIVED, scores_of
from backend.tasks.entity_tracking import ENTITY_TRACKING, counterfactual_prompts, sample_prompts
from backend.tasks.ioi import IOI
from backend.tasks.task import Group
from tests import oracles, planted, planted_ioi, tiny

TOKENIZER = tiny.word_tokenizer()
PROMPTS = sample_prompts(TOKENIZER, 4, n_boxes=3)
COUNTERFACTUAL = counterfactual_prompts(TOKENIZER, PROMPTS)
RECEIVERS = (Head(1, 1), Head(3, 0), Head(3, 3))
LENGTH = PROMPTS.input_ids.shape[1]
APART = {name: make for name, make in tiny.MAKERS.items() if name not in tiny.STRANGERS}


@cache
def float64_model(maker: str) -> Any:
    return tiny.in_float64(tiny.MAKERS[maker]())


@cache
def pairs_of(maker: str) -> RunPairs:
    return RunPairs(float64_model(maker), PROMPTS, COUNTERFACTUAL)


def pair_of(maker: str) -> RunPair:
    return pairs_of(maker).of(slice(0, len(PROMPTS)))


@torch.no_grad()
def chosen(maker: str, group: Group, component: str, n_tokens: int) -> list[list[int]]:
    """Of each prompt the tokens that run again."""
    pair, found = pair_of(maker), [[0]] * len(PROMPTS)
    assert pair.clean.run is not None
    for rows, scene in scenes(pair, pair.clean.run, group):
        few = few_tokens(scene, RECEIVERS, RECEIVED[component], n_tokens)
        for row, tokens in zip(
            rows.tolist(), few if few is not None else [None] * 99, strict=False
        ):
            found[row] = [*range(scene.token, LENGTH)] if tokens is None else tokens.tolist()
    return found


def ways(attention: Sequence[Tensor], row: int, at: int, token: int, reads: Sequence[int]) -> float:
    """The strongest way from `at` through a token to the last, written out head by head."""
    first, best = min(RECEIVERS).layer, 0.0
    for layer in range(first, len(attention)):
        for head in range(attention[layer].shape[1]):
            if layer == first and head not in reads:
                continue
            seen = float(attention[layer][row, head, token, at])
            above = (float(each[row, :, -1, token].max()) for each in attention[layer + 1 :])
            best = max(best, seen * max(above, default=0.0))
    return best


@pytest.mark.parametrize("component", ["q", "k", "v"])
@pytest.mark.parametrize("maker", ["llama", "grouped"])
@torch.no_grad()
def test_those_run_again_through_which_the_strongest_ways_go(maker: str, component: str) -> None:
    model, group = float64_model(maker), ENTITY_TRACKING.group("D")
    ids = torch.tensor(PROMPTS.input_ids)
    attention = model(input_ids=ids, output_attentions=True).attentions
    _, n_heads, n_kv_heads, _ = oracles.sizes(model)
    shared_by = n_heads // n_kv_heads
    shared = {1 // shared_by}
    reads = [] if component == "q" else [i for i in range(n_heads) if i // shared_by in shared]
    for row, found in enumerate(chosen(maker, group, component, 4)):
        at = int(PROMPTS.positions[group.position][row])
        between = range(at + 1, LENGTH - 1)
        weigh = {token: ways(attention, row, at, token, reads) for token in between}
        strongest = sorted(between, key=lambda token: -weigh[token])[:2]
        assert found == sorted({at, LENGTH - 1, *strongest})


@pytest.mark.parametrize("n_tokens", [2, 4])
@pytest.mark.parametrize("maker", APART)
def test_scores_equal_plain_runs_in_which_all_other_tokens_stay_as_they_were(
    maker: str, n_tokens: int
) -> None:
    model, group = float64_model(maker), ENTITY_TRACKING.group("D")
    few = chosen(maker, group, "v", n_tokens)
    assert all(len(each) <= n_tokens for each in few)
    clean, other = oracles.run(model, PROMPTS), oracles.run(model, COUNTERFACTUAL)
    found = scores_of(pairs_of(maker), "D", RECEIVERS, n_tokens=n_tokens)
    exact = scores_of(pairs_of(maker), "D", RECEIVERS)
    for sender in (Head(0, 0), Head(0, 3), Head(1, 2), Head(2, 1)):
        expected = oracles.path_patching_score(
            model, PROMPTS, COUNTERFACTUAL, "D", RECEIVERS, sender, clean, other, few=few
        )
        torch.testing.assert_close(found[:, *sender], expected, rtol=0, atol=1e-12)
    assert (found - exact).abs().max() > 1e-6


@pytest.mark.parametrize("score", Score)
@pytest.mark.parametrize("maker", ["llama", "grouped", "gpt2"])
def test_what_goes_through_others_is_added_to_first_order(maker: str, score: Score) -> None:
    model, few = float64_model(maker), chosen(maker, ENTITY_TRACKING.group("D"), "v", 3)
    given = model, PROMPTS, COUNTERFACTUAL, "D", RECEIVERS
    clean, other = oracles.run(model, PROMPTS), oracles.run(model, COUNTERFACTUAL)
    rest = oracles.attributions(*given, score) - oracles.attributions(*given, score, few=few)
    found = quick_scores_of(pairs_of(maker), "D", RECEIVERS, 3, score=score)
    for sender in (Head(0, 0), Head(0, 3), Head(2, 1)):
        runs = oracles.path_patching_score(*given, sender, clean, other, score, few)
        expected = runs + rest[:, *sender]
        torch.testing.assert_close(found[:, *sender], expected, rtol=0, atol=1e-11)
    assert rest.abs().max() > 1e-3


def test_progress_counts_up_and_what_was_kept_is_taken(tmp_path: Path) -> None:
    pairs, told = RunPairs(float64_model("llama"), PROMPTS, COUNTERFACTUAL), []
    first = quick_scores_of(
        pairs, "D", RECEIVERS, 3, lambda *step: told.append(step), Folder(tmp_path)
    )
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(done)
    assert {*totals} == {1}
    assert (done[0], done[-1]) == (0, pytest.approx(1))
    with torch.no_grad():
        broken = tiny.in_float64(tiny.llama(seed=1))
    elsewhere = RunPairs(broken, PROMPTS, COUNTERFACTUAL)
    assert torch.equal(
        quick_scores_of(elsewhere, "D", RECEIVERS, 3, kept_in=Folder(tmp_path)), first
    )


@pytest.mark.parametrize("component", ["q", "k"])
@pytest.mark.parametrize("maker", ["grouped", "gpt2"])
@torch.no_grad()
def test_queries_and_keys_are_received_alike(maker: str, component: str) -> None:
    model, group, projection = float64_model(maker), ENTITY_TRACKING.group("D"), RECEIVED[component]
    pair, few = pair_of(maker), chosen(maker, group, component, 3)
    clean, other = oracles.run(model, PROMPTS), oracles.run(model, COUNTERFACTUAL)
    sender = Head(0, 3)
    expected = oracles.path_patched_logits(
        model, PROMPTS, COUNTERFACTUAL, group.position, projection, RECEIVERS, sender, clean, other,
        few,
    )  # fmt: skip
    assert pair.clean.run is not None
    for rows, scene in scenes(pair, pair.clean.run, group):
        tokens = few_tokens(scene, RECEIVERS, projection, 3)
        ((_, final),) = receivers_runs(scene, {0: [3]}, RECEIVERS, projection, tokens)
        found = logits_of(model, final)[:, 0]
        torch.testing.assert_close(found, expected[rows], rtol=0, atol=1e-12)
    assert (expected - clean[0]).abs().max() > 1e-4


@pytest.mark.parametrize("component", ["q", "k", "v"])
@torch.no_grad()
def test_with_all_tokens_it_is_path_patching(component: str) -> None:
    pair, senders = pair_of("grouped"), {layer: range(4) for layer in range(3)}
    assert pair.clean.run is not None
    for _, scene in scenes(pair, pair.clean.run, ENTITY_TRACKING.group("D")):
        assert few_tokens(scene, RECEIVERS, RECEIVED[component], LENGTH - scene.token) is None
        every = torch.arange(scene.token, LENGTH).expand(scene.clean.shape[1], -1)
        for (layer, final), (_, exact) in zip(
            receivers_runs(scene, senders, RECEIVERS, RECEIVED[component], every),
            receivers_runs(scene, senders, RECEIVERS, RECEIVED[component]),
            strict=True,
        ):
            torch.testing.assert_close(final, exact, rtol=0, atol=1e-12, msg=str(layer))


@pytest.mark.parametrize("group", ["A", "B", "C"])
def test_groups_at_the_last_tokens_lose_nothing(group: str) -> None:
    pairs = pairs_of("llama")
    assert torch.equal(
        quick_scores_of(pairs, group, RECEIVERS, 4), scores_of(pairs, group, RECEIVERS)
    )


@pytest.mark.parametrize("maker", tiny.STRANGERS)
def test_a_model_that_runs_only_whole_is_refused(maker: str) -> None:
    with pytest.raises(UserError, match="only be run whole"):
        quick_scores_of(RunPairs(tiny.MAKERS[maker](), PROMPTS, COUNTERFACTUAL), "D", RECEIVERS)


PLANTED = [
    *((planted, ENTITY_TRACKING, (3,), group) for group in ENTITY_TRACKING.groups),
    *((planted_ioi, IOI, (), group) for group in IOI.groups),
]


@pytest.mark.parametrize(
    ("planted_in", "task", "options", "group"), PLANTED, ids=lambda of: getattr(of, "key", "")
)
def test_planted_heads_rank_first(planted_in: Any, task: Any, options: Any, group: Group) -> None:
    tokenizer, model = planted_in.tokenizer(), planted_in.model()
    model.set_attn_implementation("eager")
    prompts = task.sample(tokenizer, 20, 0, *options)
    pairs = RunPairs(model, prompts, task.counterfactual(tokenizer, prompts, 0))
    receivers = [head for key in group.into for head in planted_in.CIRCUIT[key]]
    given = pairs, group.key, receivers
    few, exact = (of(*given).double().mean(0) for of in (quick_scores_of, scores_of))
    heads = planted_in.CIRCUIT[group.key]
    strongest = few.flatten().argsort()[: len(heads)].tolist()
    assert {Head(*divmod(place, shape_of(model).n_heads)) for place in strongest} == {*heads}
    for head in heads:
        assert float(few[head]) == pytest.approx(float(exact[head]), rel=0.02)
