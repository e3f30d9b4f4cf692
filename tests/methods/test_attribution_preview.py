"""Previews of stages, what they are checked by, and that no circuit comes of them."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from scipy import stats

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.metrics import Score
from backend.core.progress import Cancelled, silent
from backend.core.statistics import mean_estimate
from backend.engine.path_patching.attribution_patching import attribution_scores
from backend.engine.path_patching.quick import quick_scores_of
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import path_patching_scores
from backend.methods.agreement import agreement, in_words
from backend.methods.attribution_patching import AttributionRequest
from backend.methods.chosen_senders import SenderScore, SenderScores, SendersRequest
from backend.methods.preview import Preview
from backend.methods.quick import QuickRequest
from backend.methods.registry import title_of
from backend.methods.rows import figures
from backend.methods.stage import Stage
from backend.methods.stages import Criteria
from backend.studies import studies
from backend.studies.previews import FewTokens, Gradients, Look, run_previews, stored_previews
from backend.studies.stages import run_stages, stored_stages
from backend.tasks.entity_tracking import ENTITY_TRACKING, counterfactual_prompts
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from tests import planted

PROMPTS = Prompts(ENTITY_TRACKING, 12, 0, (3,))
CRITERIA = Criteria({key: len(heads) for key, heads in planted.CIRCUIT.items()}, fdr=1)
K = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the planted model."""
    folder = tmp_path_factory.mktemp("models") / "planted"
    planted.model().save_pretrained(folder)
    planted.tokenizer().save_pretrained(folder)
    return str(folder)


WAYS = [Gradients(), FewTokens()]


def look(model: str, by: Gradients | FewTokens = WAYS[0]) -> Look:
    return Look(Setting(model, PROMPTS), CRITERIA, Score.logit_difference, by)


@pytest.mark.parametrize("by", WAYS, ids=str)
def test_previews_find_the_planted_heads_and_their_receivers(
    model: str, by: Gradients | FewTokens
) -> None:
    found = [*run_previews(look(model, by), K, silent)]
    assert [each.request.group for each in found] == [*planted.CIRCUIT]
    for each in found:
        heads = planted.CIRCUIT[each.request.group]
        assert {*each.preview.top(len(heads))} == {*heads}
        assert each.checked
        assert {*each.checked.strongest[: len(heads)]} == {*heads}
        assert not {*heads} & {*each.checked.missed}
    assert [{*each.request.receivers} for each in found[1:]] == [
        {*planted.CIRCUIT[key]} for key in "ABC"
    ]
    assert [each.into_exact for each in found] == [True, False, False, False]


@pytest.mark.parametrize("steps", [0, 2])
def test_a_preview_and_its_check_are_the_engines(model: str, steps: int) -> None:
    receivers = planted.CIRCUIT["A"]
    (found,) = studies.run(
        AttributionRequest(model, PROMPTS, "B", receivers, Score.probability, steps), silent
    )
    prompts = PROMPTS.sample(planted.tokenizer())
    runs = planted.model(), prompts, counterfactual_prompts(planted.tokenizer(), prompts)
    scores = attribution_scores(*runs, "B", receivers, steps=steps).double()
    np.testing.assert_allclose(found.estimated.mean, scores.mean(0), rtol=2e-3, atol=1e-7)
    error = scores.std(0) / len(scores) ** 0.5
    np.testing.assert_allclose(found.estimated.standard_error, error, rtol=2e-3, atol=1e-7)

    senders = found.to_check(K, 0)
    (checked,) = studies.run(SendersRequest(model, PROMPTS, "B", receivers, senders), silent)
    exact = path_patching_scores(*runs, "B", receivers).double()
    assert tuple(each.head for each in checked.heads) == senders
    for each in checked.heads:
        assert each.score.value == pytest.approx(float(exact[:, *each.head].mean()), abs=1e-6)
        assert each.score.n == len(prompts)


def test_a_quick_preview_is_the_engines(model: str) -> None:
    receivers = planted.CIRCUIT["C"]
    (found,) = studies.run(QuickRequest(model, PROMPTS, "D", receivers, n_tokens=3), silent)
    prompts, loaded = PROMPTS.sample(planted.tokenizer()), planted.model()
    loaded.set_attn_implementation("eager")
    pairs = RunPairs(loaded, prompts, counterfactual_prompts(planted.tokenizer(), prompts))
    scores = quick_scores_of(pairs, "D", receivers, 3).double()
    np.testing.assert_allclose(found.estimated.mean, scores.mean(0), rtol=1e-4, atol=1e-6)
    error = scores.std(0) / len(scores) ** 0.5
    np.testing.assert_allclose(found.estimated.standard_error, error, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("by", WAYS, ids=str)
def test_what_is_stored_is_found_and_whole_stages_check_all(
    model: str, by: Gradients | FewTokens
) -> None:
    asked = look(model, by)
    assert not stored_previews(asked, K)
    first = [*run_previews(asked, K, silent)]
    again = stored_previews(asked, K)
    assert [each.checked for each in again] == [each.checked for each in first]
    assert not any(each.checked and each.checked.is_whole for each in again[:2])
    # Another number to check is not there yet; the previews are.
    assert [each.checked for each in stored_previews(asked, K + 1)][:2] == [None, None]

    whole = [*run_stages(asked.setting, CRITERIA, (), "D", silent, asked.score)]
    for each, stage in zip(stored_previews(asked, K), whole, strict=True):
        assert each.into_exact
        assert each.checked
        assert each.checked.is_whole
        for head, score in each.checked.exact.items():
            assert score == stage.mean[head]


@pytest.mark.parametrize("by", WAYS, ids=str)
def test_no_preview_is_taken_for_a_stage(model: str, by: Gradients | FewTokens) -> None:
    asked = look(model, by)
    [*run_previews(asked, K, silent)]
    assert not stored_stages(asked.setting, CRITERIA, asked.score)
    after = [*run_stages(asked.setting, CRITERIA, (), "D", silent, asked.score)]
    prompts = PROMPTS.sample(planted.tokenizer())
    runs = planted.model(), prompts, counterfactual_prompts(planted.tokenizer(), prompts)
    for stage in after:
        exact = path_patching_scores(*runs, stage.group, stage.receivers, score=asked.score)
        np.testing.assert_allclose(stage.mean, exact.double().mean(0), rtol=1e-4, atol=1e-6)


def test_figures_and_titles_say_what_they_are(model: str) -> None:
    request = AttributionRequest(model, PROMPTS, "B", planted.CIRCUIT["A"], steps=2)
    (found,) = studies.run(request, silent)
    assert {row.what for row in figures(request, (found,))} == {"score, preview, not exact"}
    assert figures(request, (found,))[0].item == str(found.ranked[0])
    assert "preview" in title_of(request)
    assert "integrated over 2 steps" in title_of(request)
    checked = SendersRequest(model, PROMPTS, "B", planted.CIRCUIT["A"], found.to_check(K, 0))
    assert "into L3.1, L3.3, 6 heads" in title_of(checked)
    quick = QuickRequest(model, PROMPTS, "B", planted.CIRCUIT["A"])
    assert "quick preview" in title_of(quick)
    assert "runs of at most 4 tokens" in title_of(quick)
    (found,) = studies.run(quick, silent)
    assert {row.what for row in figures(quick, (found,))} == {"score, preview, not exact"}


@pytest.mark.parametrize("by", WAYS, ids=str)
def test_progress_goes_on_and_may_cancel(model: str, by: Gradients | FewTokens) -> None:
    told: list[float] = []
    [*run_previews(look(model, by), K, lambda _, share: told.append(share))]
    assert min(np.diff(told)) > -1e-9
    assert 0 <= told[0] < 0.1
    assert told[-1] <= 1.0001

    def cancel(what: str, share: float) -> None:
        raise Cancelled

    other = replace(look(model, by), score=Score.probability)
    with pytest.raises(Cancelled):
        [*run_previews(other, K, cancel)]
    assert not stored_previews(other, K)


def preview(mean: np.ndarray) -> Preview:
    return Preview(Stage("B", mean, np.where(mean != 0, 0.1, 0.0), (Head(3, 2), Head(1, 1)), 10))


def scores(exact: dict[Head, float]) -> SenderScores:
    return SenderScores(
        tuple(SenderScore(head, mean_estimate(np.array([each]))) for head, each in exact.items())
    )


MEAN = np.random.default_rng(0).normal(size=(4, 6))
MEAN[3], MEAN[0, 2] = 0, 0
"""Not below a receiver, and a head of which the gradient is zero: it may matter all the same."""


def test_heads_are_ranked_by_how_negative_they_are_if_they_reach_a_receiver() -> None:
    ranked = preview(MEAN).ranked
    assert len(ranked) == 18
    assert [MEAN[head] for head in ranked] == sorted(MEAN[:3].flatten())


def test_random_others_are_drawn_once_and_by_chance() -> None:
    found = preview(MEAN)
    drawn = [found.to_check(4, seed) for seed in range(200)]
    assert all(heads[:4] == found.top(4) and len({*heads}) == 8 for heads in drawn)
    assert drawn[0] == found.to_check(4, 0)
    counts = [sum(head in heads for heads in drawn) for head in found.ranked[4:]]
    assert stats.chisquare(counts).pvalue > 0.001
    assert {*found.to_check(100, 0)} == {*found.ranked}


@pytest.mark.parametrize("is_whole", [True, False])
def test_the_agreement_is_what_ranks_say(is_whole: bool) -> None:
    found, k = preview(MEAN), 4
    exact_of = MEAN + np.random.default_rng(1).normal(size=MEAN.shape)
    heads = found.ranked if is_whole else found.to_check(k, 0)
    exact = {head: float(exact_of[head]) for head in heads}
    agreed = agreement(found, scores(exact), k)
    both = [(MEAN[head], exact[head]) for head in heads]
    assert agreed.correlation.value == pytest.approx(stats.spearmanr(both).statistic)
    assert agreed.correlation.n == len(heads)
    others = [(MEAN[head], exact[head]) for head in heads if head not in found.top(k)]
    assert agreed.of_others.value == pytest.approx(stats.spearmanr(others).statistic)
    strongest = sorted(heads, key=exact.__getitem__)[:k]
    assert [*agreed.strongest] == [head for head in strongest if exact[head] < 0]
    assert {*agreed.missed} == {*agreed.strongest} - {*found.top(k)}
    assert agreed.missed
    off = {head: MEAN[head] - exact[head] for head in found.top(k)}
    assert dict(agreed.off) == off
    furthest = max(off, key=lambda head: abs(off[head]))
    assert next(iter(agreed.off)) == furthest
    assert f"off by at most {abs(off[furthest]):.2g} ({furthest}: " in in_words(agreed)
    assert "n = 10 prompts" in in_words(agreed)
    assert agreed.is_whole == is_whole
    assert ("known only when the whole stage has run" in in_words(agreed)) != is_whole
    assert all(str(head) in in_words(agreed) for head in agreed.missed)
    assert agreed.clear == ()  # of one prompt
    assert "(clearly below zero: none)" in in_words(agreed)


def test_what_is_missed_and_clear_is_told_apart() -> None:
    exact = MEAN.copy()
    weak, strong = preview(MEAN).ranked[-2:]
    exact[weak], exact[strong] = -8, -9
    error = np.full_like(exact, 0.1)
    error[weak] = 8
    whole = Stage("B", exact, error, preview(MEAN).estimated.receivers, 10)
    found = agreement(preview(MEAN), whole, 4)
    assert found.is_whole
    assert (found.missed, found.clear) == ((strong, weak), (strong,))
    assert f"{strong}, {weak} (clearly below zero: {strong})" in in_words(found)


def test_one_head_agrees_with_nothing() -> None:
    agreed = agreement(preview(MEAN), scores({Head(0, 0): -1.0}), 1)
    assert isnan(agreed.correlation.value)
    assert "not defined" in in_words(agreed)


def test_a_sender_that_the_model_has_not_is_told(model: str) -> None:
    request = SendersRequest(model, PROMPTS, "A", (), (Head(40, 0),))
    with pytest.raises(UserError, match=r"L40\.0"):
        [*studies.run(request, silent)]
