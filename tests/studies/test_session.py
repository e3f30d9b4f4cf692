"""Clicks on a prepared session, against plain runs of whole prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.metrics import Ablation
from backend.engine.activation_patching import patched_logits_plainly
from backend.engine.answers import read_answers
from backend.engine.logit_attribution import direct_contributions
from backend.engine.mean_ablation import circuit_logits_plainly, prepare_ablated_run
from backend.engine.positions import mean_head_outputs, position_head_outputs
from backend.models import prepared
from backend.models.loading import load_model
from backend.studies.session import (
    Session,
    ablated_run,
    alternate,
    answers,
    expected_answers,
    head_contributions,
    prepare,
    source_values,
)
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import (
    ENTITY_TRACKING,
    counterfactual_prompts,
    reference_prompts,
)
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Intervention, Mode, Reading, Setting, intervention
from tests import oracles
from tests.tiny import in_float64, llama, word_tokenizer

CIRCUIT = Circuit.of(
    ENTITY_TRACKING,
    {
        "A": (Head(3, 0), Head(3, 2)),
        "B": (Head(2, 1),),
        "C": (Head(1, 3),),
        "D": (Head(0, 2),),
    },
)
OFF = frozenset({("A", Head(3, 2)), ("D", Head(0, 2))})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    places = {name: tmp_path_factory.mktemp(name) for name in ("target", "source", "wide")}
    for seed, (name, place) in enumerate(places.items()):
        llama(seed, **({"num_hidden_layers": 2} if name == "wide" else {})).save_pretrained(place)
        word_tokenizer().save_pretrained(place)
    return places


@pytest.fixture(scope="module")
def session(folders: dict[str, Path]) -> Session:
    return prepare(
        Setting(str(folders["target"]), Prompts(ENTITY_TRACKING, 12, 0, (3,))),
        lambda stage, share: None,
    )


def asked(
    reading: Reading, mode: Mode, source: str | None = None, desideratum: str | None = None
) -> Intervention:
    others = frozenset({("C", Head(0, 0))})
    return intervention(CIRCUIT, reading, mode, OFF, others, source, desideratum)


@pytest.mark.parametrize("reading", list(Reading))
def test_another_models_values_are_what_that_model_gives(
    session: Session, folders: dict[str, Path], reading: Reading
) -> None:
    source = str(folders["source"])
    step = asked(reading, Mode.other, source)
    values = position_head_outputs(llama(1), session.prompts)
    model = session.loaded.model
    if reading is Reading.model:
        logits = patched_logits_plainly(model, session.prompts, step.off, values)
        plainly = read_answers([logits.double()], session.prompts)
        np.testing.assert_allclose(
            answers(session, step).probability, plainly.probability, atol=1e-5
        )
    np.testing.assert_allclose(source_values(session, source), values, atol=1e-5)


@pytest.mark.parametrize("reading", list(Reading))
def test_a_model_patched_from_itself_is_itself(session: Session, reading: Reading) -> None:
    step = asked(reading, Mode.other, session.setting.model)
    if reading is Reading.model:
        expected = session.whole
    else:
        # Alone, the circuit differs from the whole model, so its heads do change things there.
        step = intervention(CIRCUIT, reading, Mode.other, source=session.setting.model)
        expected = answers(session, intervention(CIRCUIT, reading, Mode.mean))
    np.testing.assert_allclose(answers(session, step).probability, expected.probability, atol=1e-5)


def test_a_knock_out_is_a_plain_run_with_means(session: Session) -> None:
    step = asked(Reading.circuit, Mode.mean)
    reference = reference_prompts(session.loaded.tokenizer, session.n_reference, 0, 3)
    means = mean_head_outputs(session.loaded.model, reference)
    logits = circuit_logits_plainly(session.loaded.model, session.prompts, means, step.on)
    plainly = read_answers([logits.double()], session.prompts)
    np.testing.assert_allclose(answers(session, step).probability, plainly.probability, atol=1e-5)


def test_clicks_after_one_another_are_each_a_plain_run(
    session: Session, folders: dict[str, Path]
) -> None:
    reference = reference_prompts(session.loaded.tokenizer, session.n_reference, 0, 3)
    members = CIRCUIT.members
    sets = [(), members[:1], members[:2], members[1:2], members, members[3:], (), members[2:4]]
    prepared.keep(session.setting, session, 10**9, session.setting.model)
    of_another = replace(session, loaded=load_model(str(folders["source"])))
    for off in sets:
        step = intervention(CIRCUIT, Reading.circuit, Mode.mean, frozenset(off))
        for asked_of in (session, of_another):
            model = asked_of.loaded.model
            means = mean_head_outputs(model, reference)
            if asked_of is of_another:
                run = prepare_ablated_run(model, session.prompts, means)
                asked_of = replace(of_another, ablated_run=run)
            logits = circuit_logits_plainly(model, session.prompts, means, step.on)
            plainly = read_answers([logits.double()], session.prompts)
            found = answers(asked_of, step).probability
            np.testing.assert_allclose(found, plainly.probability, atol=1e-5)
    kept = prepared.get((session.setting, ("last run", Mode.mean)))
    assert kept.rest.on == step.on


@pytest.mark.parametrize("reading", list(Reading))
@pytest.mark.parametrize(
    ("mode", "ablation"),
    [(Mode.zero, Ablation.zero), (Mode.counterfactual, Ablation.resample)],
)
def test_a_head_that_is_off_gives_what_the_mode_says(
    session: Session, reading: Reading, mode: Mode, ablation: Ablation
) -> None:
    step, model = asked(reading, mode), in_float64(llama())
    other = counterfactual_prompts(session.loaded.tokenizer, session.prompts)
    off = oracles.off_values(model, session.prompts, session.prompts, other, ablation)
    if reading is Reading.circuit:
        logits = oracles.circuit_among(model, session.prompts, off, step.on)
    else:
        logits = oracles.model_giving(model, session.prompts, off, step.off)
    for metric, expected in (
        ("probability", oracles.answer_probabilities(logits, session.prompts)),
        ("logit_difference", oracles.logit_differences(logits, session.prompts)),
    ):
        found = getattr(answers(session, step), metric)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("reading", list(Reading))
@pytest.mark.parametrize("name", ["object", "label", "position"])
def test_a_head_that_is_off_gives_what_it_gives_on_the_alternate_prompt(
    session: Session, reading: Reading, name: str
) -> None:
    step, model = asked(reading, Mode.counterfactual, desideratum=name), in_float64(llama())
    prompts, tokenizer = session.prompts, session.loaded.tokenizer
    pairs = ENTITY_TRACKING.desideratum(name).draw(tokenizer, prompts, prompts.seed)
    values = oracles.off_values(model, prompts, prompts, pairs.alternate, Ablation.resample)
    if reading is Reading.model:
        logits = oracles.model_giving(model, prompts, values, step.off)
    else:
        reference = reference_prompts(tokenizer, session.n_reference, 0, 3)
        off = oracles.off_values(model, prompts, reference, prompts, Ablation.mean)
        for (layer, head), position in step.off:
            for row, at in enumerate(prompts.positions[position]):
                off[layer, row, at, head] = values[layer, row, at, head]
        logits = oracles.circuit_among(model, prompts, off, step.on)
    for found, beside in (
        (answers(session, step), prompts),
        (expected_answers(session, step), replace(prompts, answer_ids=pairs.expected_ids)),
    ):
        plainly = oracles.answer_probabilities(logits, beside)
        np.testing.assert_allclose(found.probability, plainly, atol=1e-5)
        right = logits.argmax(-1).numpy() == beside.answer_ids
        np.testing.assert_array_equal(found.correct, right)


def test_a_desideratum_is_one_of_counterfactuals_only() -> None:
    for mode in Mode:
        step = asked(Reading.model, mode, "other", "position")
        assert step.desideratum == ("position" if mode is Mode.counterfactual else None)
    assert asked(Reading.model, Mode.counterfactual, desideratum="").desideratum is None


def test_alternate_prompts_are_run_once(session: Session) -> None:
    prepared.keep(session.setting, session, 10**9, session.setting.model)
    assert alternate(session, "label") is alternate(session, "label")


def test_the_run_around_a_circuit_is_made_once(session: Session) -> None:
    assert ablated_run(session, Mode.other) is session.ablated_run
    prepared.keep(session.setting, session, 1, session.setting.model)
    assert ablated_run(session, Mode.zero) is ablated_run(session, Mode.zero)


def test_contributions_are_means_over_the_sessions_prompts_and_read_once(
    session: Session,
) -> None:
    found = head_contributions(session)
    model = in_float64(llama(0))
    heads = direct_contributions(model, session.prompts).heads.numpy()
    for layer, row in enumerate(found):
        for index, estimate in enumerate(row):
            assert estimate.value == pytest.approx(heads[:, layer, index].mean(), abs=1e-4)
            assert estimate.n == len(session.prompts)
    assert head_contributions(session) is found


def test_a_source_of_another_shape_is_explained(session: Session, folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"2 layers.*Choose a source"):
        answers(session, asked(Reading.model, Mode.other, str(folders["wide"])))
