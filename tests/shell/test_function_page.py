"""The Function page without a browser: pairs, maps, masks, and bad input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from backend.core.heads import Head
from backend.methods.dcm import Among, Dcm, DcmRequest
from backend.methods.functions import FunctionsRequest, carried
from backend.models import catalogue
from backend.models.loaded_models import load
from backend.studies import jobs
from backend.studies import studies as stored
from backend.tasks import registry as tasks
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Mode, Reading
from circuitviz.function_charts import carried_map, penalty_chart
from shell.frame.studies import Study
from shell.function import masks
from shell.function.patching import cells_frame
from shell.results import results
from tests.dashboard import ROOT
from tests.test_outside import ECHO

SMALL = Prompts(ENTITY_TRACKING, 50, 0, (3,))
CIRCUIT = catalogue.circuit("base")


@pytest.fixture(autouse=True)
def no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of other tests is listed or running."""
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())


def page(**query: str) -> AppTest:
    load("base")
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.query_params.update({"n": str(SMALL.n), "boxes": str(SMALL.options[0])} | query)
    test.switch_page("pages/function.py").run()
    return finished(test)


def sound(test: AppTest) -> AppTest:
    assert not test.exception
    return test


def finished(test: AppTest) -> AppTest:
    """The page when what it started is done."""
    for job in [*jobs._jobs.values()]:
        job.future.exception(120)
    return sound(test.run())


def press(test: AppTest, label: str) -> AppTest:
    next(button for button in test.button if button.label == label).click()
    return finished(test.run())


def html(test: AppTest) -> str:
    return "\n".join(element.proto.body for element in test.main.get("html"))


def said(test: AppTest) -> str:
    kinds = ("markdown", "caption", "info", "warning", "error")
    return "\n".join(element.value for kind in kinds for element in test.main.get(kind))


def study(test: AppTest, name: str) -> Study[Any]:
    found: Study[Any] = test.session_state[name]
    return found


def test_run_patches_every_group_and_the_map_says_what_is_clear() -> None:
    test = page()
    assert "Press Run to give each group of the circuit “base”" in said(test)
    test = press(test, "Run")
    found = study(test, "functions of base")
    assert found.request == FunctionsRequest("base", CIRCUIT, SMALL)
    frame = cells_frame([found], "object", "A")
    assert len(frame) == sum(len(part.groups) for part in found.job.parts) > 3 * 4
    clear = {(row.group, row.name) for row in frame.itertuples() if row.clear}
    assert clear == {*carried(found.job.parts)}
    assert ("A", "object") in clear
    assert frame["chosen"].sum() == 1
    for part in (part for part in found.job.parts if not part.reason):
        for each in part.groups.values():
            for estimate in (each.expected, each.random, each.own, part.unpatched):
                assert f"{estimate.value:.3f}" in html(test)
    assert "draws of 50 prompts, seed 0, 3 boxes" in said(test)


def test_models_stand_side_by_side() -> None:
    test = page()
    test.session_state["function_models"] = ["base", "chat"]
    test.session_state["function_tests_entity-tracking"] = ["position"]
    test = press(sound(test.run()), "Run")
    found = [study(test, f"functions of {name}") for name in ("base", "chat")]
    frame = cells_frame(found, "position", "A")
    assert [*frame["model"].unique()] == ["Base", "Chat"]
    groups = ENTITY_TRACKING.reading_order
    spec = carried_map(frame, ["Position"], ["Base", "Chat"], groups)
    squares, frames, *_ = spec["layer"]
    rows = next(iter(spec["datasets"].values()))
    assert len({(row["left"], row["right"]) for row in rows}) == 2 * len(groups)
    assert squares["encoding"]["fillOpacity"]["value"] == 0
    assert "datum.chosen" in str(frames["transform"])


def test_pairs_can_be_read_and_stepped_through() -> None:
    test = page()
    tokenizer = load("base").tokenizer
    pairs = ENTITY_TRACKING.desideratum("object").draw(
        tokenizer, SMALL.sample(tokenizer), SMALL.seed
    )
    expected = [tokenizer.decode([int(token)]) for token in pairs.expected_ids]
    assert f'answered with <b class="expected">{expected[0]}</b>' in html(test)
    assert "Pair 1 of 50" in said(test)
    test = press(test, "◀")
    assert f'answered with <b class="expected">{expected[-1]}</b>' in html(test)
    test = press(test, "▶")
    assert "Pair 1 of 50" in said(test)
    test.selectbox(key="function_test_entity-tracking").select("no_comma")
    assert "If the heads carry the position" in html(sound(test.run()))
    assert [*groups_offered(test)] == ["B"]


def groups_offered(test: AppTest) -> Sequence[str]:
    (groups,) = (each for each in test.main.get("button_group") if each.label == "Group")
    return groups.options


def test_what_a_tokenizer_cannot_write_is_listed_with_the_reason() -> None:
    test = page()
    (listed,) = (each for each in test.expander if "cannot be written for Base" in each.label)
    assert "**Text at the start**: This tokenizer does not know “There”" in listed.markdown[0].value
    test.selectbox(key="function_test_entity-tracking").select("random_text_start")
    assert any("Choose another test" in each.value for each in sound(test.run()).warning)
    test.session_state["function_tests_entity-tracking"] = ["random_text_start"]
    test = press(sound(test.run()), "Run")
    assert "None of these tests can be written" in said(test)


def learned(test: AppTest, **settings: Any) -> AppTest:
    for name, value in ({"dcm_n": 160, "dcm_batch": 16} | settings).items():
        test.session_state[name] = value
    return press(sound(test.run()), "Learn the mask")


def test_a_mask_is_learned_tested_and_opened_as_a_circuit(empty_cache: Path) -> None:
    test = learned(page())
    found = study(test, masks.STUDY)
    assert found.request == DcmRequest(
        "base", CIRCUIT, replace(SMALL, n=160), "A", "object", batch=16
    )
    (part,) = found.job.parts
    assert part.is_carried
    for estimate in (part.accuracy, part.group, part.nothing):
        assert f"{estimate.value:.3f}" in html(test)
    assert f"{len(part.heads)} of 6 heads are kept" in said(test)
    press(test, "Open in the Circuit page")
    now = test.session_state
    assert now["circuit"] == "base-A-object"
    assert {*catalogue.circuit("base-A-object").heads("A")} == {*part.heads}
    assert (now["mode"], now["reading"]) == (Mode.counterfactual, Reading.model)
    assert now["desideratum"] == "object"


def test_several_penalties_can_be_compared() -> None:
    test = learned(page(), dcm_sweep=True, dcm_epochs=1)
    parts: list[Dcm] = study(test, masks.STUDY).job.parts
    assert [part.penalty for part in parts] == [*masks.SWEPT]
    assert "How many heads for how much?" in said(test)
    shown = next(each for each in test.main.get("button_group") if each.label == "λ")
    assert [*shown.options] == [f"{penalty:g}" for penalty in masks.SWEPT]


def test_penalties_that_keep_as_many_heads_share_a_label() -> None:
    frame = pd.DataFrame(
        {
            "penalty": [0.0, 0.01, 0.1],
            "heads": [3, 3, 1],
            "share": [0.8, 0.7, 0.4],
            "low": [0.7, 0.6, 0.3],
            "high": [0.9, 0.8, 0.5],
            "n": [100, 100, 100],
        }
    )
    data = penalty_chart(frame, 0.01)["datasets"].values()
    assert {row["penalty"] for rows in data for row in rows if "share" not in row} == {
        "λ 0, 0.01",
        "λ 0.1",
    }


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"dcm_training": 90, "dcm_validation": 90}, "cannot be split"),
        ({"dcm_n": 20, "dcm_training": 1}, "cannot be split"),
    ],
)
def test_settings_that_cannot_be_are_explained(settings: dict[str, int], reason: str) -> None:
    test = page()
    for name, value in settings.items():
        test.session_state[name] = value
    sound(test.run())
    assert any(reason in each.value for each in test.warning)
    assert not any(button.label == "Learn the mask" for button in test.button)


def test_a_group_without_heads_needs_other_heads() -> None:
    circuit = Circuit.of(ENTITY_TRACKING, {"A": CIRCUIT.heads("A")}, "only-a")
    catalogue.add_circuit("only-a.json", circuit.to_json().encode())
    test = page(circuit="only-a")
    test.session_state["function_group_entity-tracking"] = "B"
    sound(test.run())
    assert any("has no heads in group B" in each.value for each in test.warning)
    test.session_state["dcm_among"] = Among.all
    sound(test.run())
    assert any(button.label == "Learn the mask" for button in test.button)


def test_a_circuit_that_does_not_fit_and_an_unknown_model_get_messages() -> None:
    big = Circuit.of(ENTITY_TRACKING, {"A": (Head(31, 31),)}, "big")
    catalogue.add_circuit("big.json", big.to_json().encode())
    test = page(circuit="big")
    assert any("has head L31.31 in group A" in each.value for each in test.warning)
    test = page(model="no-such-model")
    assert any("There is no model “no-such-model”" in each.value for each in test.error)
    assert any(button.label == "Try again" for button in test.button)
    test = page(circuit="no-such-circuit")
    assert "There is no circuit “no-such-circuit”" in test.error[0].value


def test_no_models_or_no_tests_are_asked_for() -> None:
    test = page()
    test.session_state["function_models"] = []
    assert "Choose at least one model and one test" in said(sound(test.run()))
    test.session_state["function_models"] = ["base"]
    test.session_state["function_tests_entity-tracking"] = []
    assert "Choose at least one model and one test" in said(sound(test.run()))


def test_a_task_without_tests_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, "echo", ECHO)
    circuit = Circuit.of(ECHO, {"OUT": (Head(0, 0),)}, "echoes")
    catalogue.add_circuit("echoes.json", circuit.to_json().encode())
    test = page(task="echo", circuit="echoes", boxes="7")
    assert "has no tests of what its groups encode" in said(test)


def test_results_open_here_with_what_they_were_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    functions = FunctionsRequest("base", CIRCUIT, SMALL, ("position",))
    dcm = DcmRequest(
        "base", CIRCUIT, replace(SMALL, n=160), "B", "position", Among.all, epochs=1, batch=16
    )
    for request in (functions, dcm):
        [*stored.run(request, lambda what, share: None)]
    of_groups, of_heads = (opened(monkeypatch, request) for request in (functions, dcm))
    assert of_groups.session_state["function_models"] == ["base"]
    assert of_groups.session_state["function_tests_entity-tracking"] == ["position"]
    assert len(of_groups.get("vega_lite_chart")) == 1
    now = of_heads.session_state
    assert (now["dcm_n"], now["dcm_epochs"], now["dcm_batch"]) == (160, 1, 16)
    assert now["dcm_among"] is Among.all
    assert (now["function_test_entity-tracking"], now["function_group_entity-tracking"]) == (
        "position",
        "B",
    )
    assert "of 40 heads are kept" in said(of_heads) or "No head helps" in said(of_heads)
    for test in (of_groups, of_heads):
        assert "measured with other choices" not in said(test)


def opened(monkeypatch: pytest.MonkeyPatch, request: Any) -> AppTest:
    """The page after the result of a request was ticked in the list, and opened."""
    found = stored.find(request)
    assert found
    with monkeypatch.context() as ticking:
        ticking.setattr(results, "choose", lambda entries: [results._read(found.entry)])
        test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
        test.switch_page("pages/results.py").run()
        next(b for b in test.button if b.label == "Open on the Function page").click()
        sound(test.run())
    return finished(test.switch_page("pages/function.py").run())
