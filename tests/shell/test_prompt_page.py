"""The Prompt page without a browser: words of one's own, heads off, and what cannot work."""

from __future__ import annotations

import json

from streamlit.testing.v1 import AppTest

from backend.core.heads import Head, Site
from backend.studies import written
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Mode
from backend.tasks.written import Written
from circuitviz.tokens import clicked_word, drawn_words
from shell.prompt import editor
from tests.dashboard import ROOT
from tests.shell.apps import ready, rerun

TEXT = "The apple is in Box P, the brain is in Box Q, the pipe is in Box Z. Box Q contains the"
PROMPTS = Prompts(ENTITY_TRACKING, 50, 0, (3,))


def page(**query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.switch_page("pages/prompt.py")
    test.query_params.update({"n": "50", "boxes": "3"} | query)
    return ready(test.run())


def rewrite(test: AppTest, text: str) -> AppTest:
    test.text_area(key="written_text").set_value(text)
    return rerun(test)


def figures(test: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in test.metric}


def test_a_prompt_of_ones_own_is_answered_and_heads_are_knocked_out() -> None:
    test = rewrite(page(off="A4.2,A4.3,A4.5"), TEXT)
    assert test.text_input(key="written_answer").value == "brain"
    assert test.text_input(key="written_competitors").value == "apple, pipe"
    prompt = ENTITY_TRACKING.read(TEXT)
    assert isinstance(prompt, Written)
    off = frozenset(Site(Head(4, i), "last") for i in (2, 3, 5))
    expected = written.answers("base", PROMPTS, prompt, off, Mode.mean)
    assert figures(test) == {
        "P(“brain”)": f"{expected.probability[0]:.3f}",
        "Rank": str(expected.rank[0]),
        "Logit difference": f"{expected.logit_difference[0]:.2f}",
    }
    assert any("so there are no intervals" in caption.value for caption in test.caption)


def test_another_answer_gives_other_figures_and_no_competitors_no_difference() -> None:
    test = rewrite(page(), TEXT)
    before = figures(test)["P(“brain”)"]
    test.text_input(key="written_answer").set_value("apple")
    rerun(test)
    assert any("Take it out" in caption.value for caption in test.caption)
    assert not figures(test)
    test.text_input(key="written_competitors").set_value("")
    found = figures(rerun(test))
    assert {*found} == {"P(“apple”)", "Rank"}
    assert float(found["P(“apple”)"]) < float(before)


def test_heads_take_their_values_from_a_second_prompt() -> None:
    test = page(off="A4.0,A4.2,A4.3,A4.5,A4.6,A3.6")
    test.session_state["prompt_mode"] = Mode.counterfactual
    rewrite(test, TEXT)
    test.segmented_control(key="written_here").set_value(editor.SECOND)
    rerun(test)
    other = TEXT.replace("Box Q contains", "Box Z contains")
    test.text_area(key="written_second_text").set_value(other)
    found = figures(ready(test.run()))
    assert float(found["P(“brain”)"]) < 0.5
    chart = next(each for each in test.main if "vega" in str(getattr(each, "type", "")))
    assert "second’s" in str(json.loads(chart.proto.spec))


def test_what_cannot_work_is_said_and_the_page_goes_on() -> None:
    test = rewrite(page(), "The zebroid is in the house")
    said = " ".join(caption.value for caption in test.caption)
    assert "“zebroid”" in said
    assert "Not marked: label asked for, first time" in said
    assert any("see the notes at the fields" in info.value for info in test.info)
    assert figures(rewrite(test, TEXT))


def test_starting_over_brings_the_tasks_prompt_back() -> None:
    test = page()
    first = test.text_area(key="written_text").value
    rewrite(test, TEXT)
    next(button for button in test.button if button.label == "Start over").click()
    assert rerun(test).text_area(key="written_text").value == first
    next(button for button in test.button if button.label == "▶").click()
    assert rerun(test).text_area(key="written_text").value != first


def test_models_side_by_side() -> None:
    test = rewrite(page(), TEXT)
    test.multiselect(key="prompt_models").set_value(["base", "arithmetic-full"])
    ready(test.run())
    said = [each.value for each in test.markdown]
    assert any("Arithmetic" in each for each in said if each.startswith("**"))


def test_words_tell_their_roles_and_clicks_are_checked() -> None:
    prompt = ENTITY_TRACKING.read(TEXT)
    assert isinstance(prompt, Written)
    words = drawn_words(prompt, ENTITY_TRACKING)
    assert "".join(word["gap"] + word["word"] for word in words) == TEXT
    looks = {word["at"]: word for word in words}
    brain = looks[TEXT.index("brain") + 4]
    assert brain["kind"] == "marked answer"
    assert "correct object" in brain["title"]
    assert looks[TEXT.index("apple") + 4]["kind"] == "known competitor"
    assert clicked_word(TEXT.index("brain") + 4, prompt) == ("brain", TEXT.index("brain") + 4)
    for bad in (3.0, True, "7", None, -1, 10_000, [4]):
        assert clicked_word(bad, prompt) is None
