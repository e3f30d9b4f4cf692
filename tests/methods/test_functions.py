"""What groups carry: known by construction in planted models, and obvious hooked runs in others."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.core.errors import UserError
from backend.core.heads import Site
from backend.core.statistics import Estimate
from backend.engine.architectures import shape_of
from backend.methods.evaluation import Evaluation
from backend.methods.functions import (
    N_RANDOM,
    Carried,
    Functions,
    FunctionsRequest,
    carried,
    functions,
    random_groups,
)
from backend.models import catalogue
from backend.models.loading import LoadedModel
from backend.tasks.circuit import Circuit
from backend.tasks.desiderata import Desideratum, Pairs
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts, PromptSet
from tests import oracles, planted, planted_ioi, tiny
from tests.circuits import CIRCUIT, TOKENIZER

PLANTED = Circuit.of(ENTITY_TRACKING, planted.CIRCUIT)
FEW = Prompts(ENTITY_TRACKING, 12, 0, (3,))
NAMES = [each.name for each in ENTITY_TRACKING.desiderata]


@cache
def planted_evaluation(n_boxes: int = 3) -> Evaluation:
    model, tokenizer = planted.model(), planted.tokenizer()
    base = Prompts(ENTITY_TRACKING, 60, 0, (n_boxes,)).sample(tokenizer)
    return Evaluation(LoadedModel("planted", model, tokenizer, shape_of(model)), base, base)


@cache
def results_of(name: str) -> Functions:
    return functions(planted_evaluation(), PLANTED, ENTITY_TRACKING.desideratum(name), 3)


@pytest.mark.parametrize(
    ("name", "carriers"), [("object", "A"), ("label", ""), ("position", "BCD")]
)
def test_planted_groups_carry_what_is_known(name: str, carriers: str) -> None:
    """Fetchers copy an object; all others hand on an ordinal, which is that of no label."""
    found = results_of(name)
    assert found.unpatched
    assert found.unpatched.value == 0
    assert found.chance == pytest.approx(1 / 3)
    assert carried([found]) == [(key, name) for key in carriers]
    assert [*found.groups] == [*"ABCD"]
    for key, each in found.groups.items():
        assert each.expected.value == each.change.value == float(key in carriers)
        assert each.by_draw == (each.expected.value,) * 3
        assert each.own.value == 0 or key == "A"
        assert each.expected.p == pytest.approx((1 / 3) ** 60 if key in carriers else 1)
        assert each.random.value < 0.25
        assert each.expected.n == each.own.n == each.random.n == 60


@pytest.mark.parametrize(
    ("name", "comes_true"),
    [
        ("add_seg_end", lambda k: k >= 0),
        ("add_seg_start", lambda k: k == 2),
        ("add_comma", lambda k: k == 2),
        ("no_comma", lambda k: k == 0),
        ("altered_box_obj_order", lambda k: k > 0),
        ("incorrect_segment", lambda k: k < 0),
    ],
)
def test_what_moves_the_planted_ordinal_is_known(name: str, comes_true: Any) -> None:
    """It counts `The` and commas: the alternate's index k has the ordinal of another one in the
    base, and past the last of three the last is closest."""
    base, desideratum = planted_evaluation().prompts, ENTITY_TRACKING.desideratum(name)
    pairs = desideratum.draw(planted.tokenizer(), base, base.seed)
    index = (base.choice_ids == pairs.expected_ids[:, None]).argmax(1)
    (found,) = results_of(name).groups.values()
    assert found.expected.value == pytest.approx(comes_true(index).mean())


def test_planted_inhibition_heads_carry_the_name_and_not_the_position() -> None:
    """Without a name to avoid, movers copy the name that is there twice: the control shows it."""
    model, tokenizer = planted_ioi.model(), planted_ioi.tokenizer()
    base = IOI.sample(tokenizer, 40)
    evaluation = Evaluation(LoadedModel("planted", model, tokenizer, shape_of(model)), base, base)
    circuit = Circuit.of(IOI, planted_ioi.CIRCUIT)
    found = {each.name: functions(evaluation, circuit, each) for each in IOI.desiderata}
    shares = {
        name: {key: each.expected.value for key, each in of.groups.items()}
        for name, of in found.items()
    }
    by_name = {"NM": 0, "SI": 1, "IN": 1, "PT": 0}
    assert shares == {
        "answer": {"NM": 1, "SI": 0, "IN": 0, "PT": 0},
        "name": by_name,
        "position": {"NM": 0, "SI": 0, "IN": 0, "PT": 0},
        "name_and_position": by_name,
        "position_of_another": by_name,
        "name_of_another": by_name,
    }
    assert all(each.chance == 0.5 for each in found.values())


def test_what_cannot_be_written_is_told_with_the_reason() -> None:
    found = results_of("random_text_start")
    assert found.reason.startswith("This tokenizer does not know “There”, “a”, “are”")
    assert (found.groups, found.unpatched) == ({}, None)
    assert carried([found]) == []


def answers(model: Any, base: PromptSet, alternate: PromptSet, sites: Collection[Site]) -> Any:
    """Tokens answered [n] when heads at these sites give what they give at the alternate's own."""
    others = oracles.head_outputs(model, alternate)
    new = {}
    for (layer, index), position in sites:
        for row in range(len(base)):
            at, other_at = (int(each.positions[position][row]) for each in (base, alternate))
            new[layer, row, at, index] = others[layer, row, other_at, index]
    return oracles.replaced(model, base, new).argmax(-1).numpy()


@pytest.mark.parametrize("kind", ["llama", "grouped", "lora", "gemma2", "neox", "granite"])
@pytest.mark.parametrize("name", ["label", "add_seg_start", "altered_box_obj_order"])
def test_shares_are_those_of_plain_runs_in_float64(kind: str, name: str) -> None:
    """Expected is, prompt by prompt, what a plain run answers with one of the groups patched."""
    model = tiny.in_float64(tiny.MAKERS[kind]())
    base = FEW.sample(TOKENIZER)
    alternate = ENTITY_TRACKING.desideratum(name).draw(TOKENIZER, base, 0).alternate
    said = {key: answers(model, base, alternate, CIRCUIT.sites_of([key])) for key in "ABCD"}
    plain = answers(model, base, alternate, [])
    expected = np.choose(np.arange(len(base)) % 4, [said[key] for key in "ABCD"])
    test = Desideratum(name, name, name, "", lambda *_: Pairs(base, alternate, expected))
    loaded = LoadedModel(kind, model, TOKENIZER, shape_of(model))
    found = functions(Evaluation(loaded, base, base), CIRCUIT, test)

    def share(answered: NDArray[Any], wanted: NDArray[Any] = expected) -> Any:
        return pytest.approx((answered == wanted).mean())

    assert found.unpatched
    assert found.unpatched.value == share(plain)
    for key, each in found.groups.items():
        assert each.expected.value == share(said[key])
        assert each.own.value == share(said[key], base.answer_ids)
        assert each.change.value == pytest.approx(each.expected.value - found.unpatched.value)
    drawn = random_groups(CIRCUIT, "C", shape_of(model), base.seed)
    shares = [(answers(model, base, alternate, sites) == expected).mean() for sites in drawn]
    assert found.groups["C"].random.value == pytest.approx(np.mean(shares))


def test_random_groups_are_of_other_heads_at_the_same_token() -> None:
    drawn = random_groups(CIRCUIT, "C", shape_of(planted.model()), 3)
    assert len(drawn) == N_RANDOM == len({*drawn})
    for sites in drawn:
        assert len(sites) == len(CIRCUIT.heads("C"))
        assert {site.position for site in sites} == {"query_label"}
        assert not {site.head for site in sites} & {*CIRCUIT.heads("C")}
    assert drawn == random_groups(CIRCUIT, "C", shape_of(planted.model()), 3)


def cell(p: float, random: float = 0.5, chance: float = 0.01) -> Carried:
    def estimate(value: float, p: float | None = None) -> Estimate:
        return Estimate(value, value - 0.1, value + 0.1, 60, p)

    nothing, expected = estimate(0), estimate(0.4, chance)
    return Carried(expected, estimate(0.2, p), nothing, nothing, estimate(random), ())


def test_clear_is_what_is_clear_among_all_that_were_tried() -> None:
    one = [Functions("object", groups={"A": cell(0.02)})]
    assert carried(one) == [("A", "object")]
    others = Functions("label", groups={key: cell(0.6) for key in "ABCD"})
    assert carried([*one, others]) == []
    for less in ({"random": 0.05}, {"random": -0.5}, {"chance": 0.2}):
        assert carried([Functions("object", groups={"A": cell(0.001, **less)})]) == []


def test_draws_are_of_other_prompts_each() -> None:
    request = FunctionsRequest("base", PLANTED, FEW, draws=4)
    assert request.all_prompts.n == 48
    texts = request.all_prompts.sample(planted.tokenizer()).texts
    assert len({*texts}) == 48
    assert texts[:12] == FEW.sample(planted.tokenizer()).texts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"desiderata": ("nothing",)}, "no desideratum “nothing”. Choose of object, label"),
        ({"desiderata": ("object", "object")}, "asked for twice"),
        ({"draws": 0}, "once or more, not 0 times"),
        ({"draws": 100_000}, "At most 100000 prompts"),
    ],
)
def test_what_cannot_be_asked_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FunctionsRequest("base", PLANTED, FEW, **changes)


def test_heads_that_the_model_has_not_are_told() -> None:
    with pytest.raises(UserError, match="has head L0"):
        functions(
            planted_evaluation(), catalogue.circuit("base"), ENTITY_TRACKING.desideratum("object")
        )
