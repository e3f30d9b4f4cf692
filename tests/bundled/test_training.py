import dataclasses

import pytest
import torch

from backend.bundled import train
from backend.bundled.curriculum import CURRICULUM, FINE_TUNES, Ramp
from backend.bundled.train import Run, fine_tune, new_model, train_base
from backend.bundled.validation import Validation
from backend.bundled.vocabulary import LABELS, VARIABLES, word_ids
from backend.core.errors import UserError


@pytest.fixture(scope="module")
def validation():
    return Validation.sample(20)


def weights_after(seed, steps=3):
    run = Run(new_model(seed), seed)
    for step in range(steps):
        run.train(CURRICULUM[-1], step)
    return torch.cat([p.detach().flatten() for p in run.model.parameters()]), run.losses


def test_a_seed_gives_the_same_weights_and_losses():
    first, second, other = weights_after(1), weights_after(1), weights_after(2)
    assert torch.equal(first[0], second[0])
    assert first[1] == second[1]
    assert not torch.equal(first[0], other[0])


def test_names_are_learned_until_the_last_phase_and_shrink_in_it():
    model = new_model(0)
    names = [word_ids()[name] for name in (*LABELS, *VARIABLES)]

    def embedded():
        return model.get_input_embeddings().weight[names].detach().clone()

    untrained, run = embedded(), Run(model, 0)
    run.train(CURRICULUM[0], 10)
    assert not torch.allclose(embedded(), untrained, rtol=1e-3)
    run.train(CURRICULUM[-1], 0)
    held = embedded()
    for step in (100, 200, 600):
        run.train(CURRICULUM[-1], step)
    torch.testing.assert_close(embedded(), held / 1000)


def test_ramps_go_from_start_to_end_and_stay():
    ramp = Ramp(2.0, 1.0, 10)
    assert [ramp.at(step) for step in (0, 5, 10, 50)] == [2.0, 1.5, 1.0, 1.0]


def test_a_base_that_never_learns_is_an_error_that_says_so(validation, monkeypatch):
    short = [dataclasses.replace(phase, steps=1) for phase in CURRICULUM]
    monkeypatch.setattr(train, "CURRICULUM", tuple(short))
    with pytest.raises(UserError, match="another --seed"):
        train_base(0, validation, lambda line: None)


@pytest.mark.parametrize("recipe", FINE_TUNES, ids=lambda recipe: recipe.name)
def test_fine_tuning_leaves_the_base_as_it_was(validation, recipe):
    base = new_model(0)
    before = {name: weights.clone() for name, weights in base.state_dict().items()}
    short = dataclasses.replace(recipe, phase=dataclasses.replace(recipe.phase, steps=2))
    training = fine_tune(base, short, 0, validation, lambda line: None)
    assert training.steps == 2
    assert all(torch.equal(before[name], weights) for name, weights in base.state_dict().items())
