"""Talks: what a step keeps and brings back, and files that are not trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from backend.core.errors import UserError
from backend.core.heads import Head, Site
from backend.studies import store
from backend.tasks.entity_tracking import ENTITY_TRACKING
from shell.cmap import transplant
from shell.frame.position import Position, from_query, to_query
from shell.frame.view import from_query as view_of
from shell.talk import following, kept, stepping, talks
from shell.talk.speaker import speaker_html
from shell.talk.talk import LONGEST_TITLE, MAX_KB, MOST_STEPS, Step, Talk, from_text, to_text
from tests.dashboard import ROOT
from tests.shell.apps import drawn, figures, ready
from tests.shell.test_page import session_of

words = st.text(min_size=1, max_size=40).filter(str.strip)
steps = st.builds(
    Step,
    title=words,
    note=st.text(max_size=200),
    page=st.sampled_from(kept.PAGES),
    view=st.fixed_dictionaries({}, optional={"off": st.just("A4.2"), "n": st.just("50")}),
)
some_talks = st.builds(Talk, title=words, steps=st.lists(steps, max_size=6).map(tuple), needs=words)


@given(some_talks)
def test_a_talk_comes_back_from_its_file(talk: Talk) -> None:
    assert from_text(to_text(talk)) == talk


@given(some_talks, st.integers(0, 5), st.integers(-5, 5))
def test_steps_change_places_and_none_is_lost(talk: Talk, place: int, by: int) -> None:
    if place >= len(talk.steps):
        return
    moved = talk.moved(place, by)
    assert sorted(map(repr, moved.steps)) == sorted(map(repr, talk.steps))
    if 0 <= place + by < len(talk.steps):
        assert moved.steps[place + by] == talk.steps[place]
        assert moved.moved(place + by, -by) == talk
    assert len(talk.without(place).steps) == len(talk.steps) - 1


PINNED = transplant.pinned_key(ENTITY_TRACKING)
GOOD: dict[str, Any] = {"format": 1, "title": "t", "steps": [{"title": "s", "page": "compare"}]}


def changed(**fields: Any) -> dict[str, Any]:
    return GOOD | {"steps": [GOOD["steps"][0] | fields]}


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ([], "the file"),
        (GOOD | {"format": 2}, "format"),
        (GOOD | {"title": ""}, "title"),
        (GOOD | {"title": 3}, "title"),
        (GOOD | {"title": "x" * (LONGEST_TITLE + 1)}, "title"),
        (GOOD | {"steps": {}}, "steps"),
        (GOOD | {"steps": GOOD["steps"] * (MOST_STEPS + 1)}, "steps"),
        (GOOD | {"colour": 1}, "colour"),
        (GOOD | {"steps": [3]}, "steps.1"),
        (changed(note=3), "steps.1.note"),
        (changed(page="../app"), "steps.1.page"),
        (changed(page="speaker"), "steps.1.page"),
        (changed(page=["compare"]), "steps.1.page"),
        (changed(view={"n": "7"}), "steps.1.view"),
        (changed(view={"n": 50}), "steps.1.view.n"),
        (changed(view={"presenting": "1"}), "steps.1.view"),
        (changed(view={"task": "smell"}), "steps.1.view"),
        (changed(choices=[]), "steps.1.choices"),
        (changed(choices={"epoch": 1}), "epoch"),
        (changed(choices={"compared": "base"}), "steps.1.choices.compared"),
        (changed(choices={"compared": ["a\x00b"]}), "steps.1.choices.compared"),
        (changed(choices={"compared_ablation": "smash"}), "steps.1.choices.compared_ablation"),
        (changed(page="cmap", choices={"ticked_groups": ["Z"]}), "ticked_groups"),
        (changed(page="discover", choices={"discover_n": 10**6}), "discover_n"),
        (changed(page="discover", choices={"discover_n": True}), "discover_n"),
        (changed(page="logits", choices={"logits_read": "Tea leaves"}), "logits_read"),
        (changed(page="attention", choices={"attention_head": [1]}), "attention_head"),
        (changed(page="paper", choices={"paper_section": "None"}), "paper_section"),
        (changed(page="function", choices={"dcm_sweep": 1}), "dcm_sweep"),
        (changed(page="function", choices={"dcm_rate": -1.0}), "dcm_rate"),
        (changed(page="function", choices={"dcm_penalty": None}), "dcm_penalty"),
        (changed(page="cmap", choices={PINNED: [[[1, 0], "nowhere"]]}), PINNED),
        (changed(page="cmap", choices={PINNED: ["A1.0"]}), PINNED),
    ],
)  # fmt: skip
def test_each_mistake_is_named(data: Any, named: str) -> None:
    with pytest.raises(UserError, match=named.replace(".", r"\.")):
        from_text(json.dumps(data))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b" " * (MAX_KB * 1024 + 1), b"[" * 9999])
def test_what_is_no_talk_is_refused(content: bytes) -> None:
    with pytest.raises(UserError):
        from_text(content)


@pytest.mark.parametrize("name", ["../x", "a/b", "", "x" * 65, "a.b", "\x00"])
def test_a_name_never_leads_elsewhere(name: str) -> None:
    for action in (talks.talk, lambda name: talks.keep(name, Talk("t")), talks.drop):
        with pytest.raises(UserError):
            action(name)
    position, complaints = from_query({"talk": name, "step": "1"})
    assert position is None
    assert len(complaints) == 1


def test_talks_are_kept_copied_and_dropped_and_those_that_ship_are_not_changed() -> None:
    assert talks.add("mine", Talk("Mine")) == "mine"
    assert talks.add("mine", Talk("Another")) == "mine-2"
    talks.rename("mine", "Called so")
    assert talks.talk("mine") == Talk("Called so")
    talks.drop("mine")
    assert talks.names() == ("findings", "ioi", "mine-2")
    for action in (lambda: talks.keep("ioi", Talk("x")), lambda: talks.rename("ioi", "x")):
        with pytest.raises(UserError, match="copy"):
            action()
    talks.drop("ioi")
    assert "ioi" in talks.names()
    assert talks.name_for("  Größe: a talk!/..") == "gr-e-a-talk"


names = st.text("abcXYZ019-_", min_size=1, max_size=64)


@given(st.builds(Position, names, st.integers(0, 998)))
def test_a_position_comes_back_from_the_address(position: Position) -> None:
    assert from_query(to_query(position)) == (position, [])


@pytest.mark.parametrize("step", ["0", "-1", "x", "", "1e3", "９", "99999"])
def test_a_step_that_is_none_is_named_and_the_talk_begins(step: str) -> None:
    position, complaints = from_query({"talk": "findings", "step": step})
    assert position == Position("findings")
    assert complaints == [f"“step={step}”"]


def test_the_speaker_sees_words_as_words() -> None:
    talk = Talk("<b>t", (Step("<i>one", "<u>n\nmore"), Step("<s>two")))
    html = speaker_html(talk, 0, 61, "12:00")
    assert all(f"&lt;{tag}&gt;" in html for tag in "biu")
    assert "&lt;s&gt;two" in html
    assert "1:01" in html
    assert "the end" in speaker_html(talk, 1, 0, "12:00")


def test_the_clock_starts_when_a_talk_is_first_shown() -> None:
    assert following.presented("one that nobody gives") is None
    following.tell("clock", 0)
    began = following.presented("clock")
    following.tell("clock", 1)
    now = following.presented("clock")
    assert began
    assert now
    assert (now.step, now.began) == (1, began.began)


def test_visitors_of_a_read_only_dashboard_lead_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "is_read_only", lambda: True)
    following.begin("visited")
    following.tell("visited", 1)
    assert following.presented("visited") is None


def app(**query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    test.query_params.update(query)
    return test.run()


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHIPPED", ROOT / "cache" / "shipped")


FINDINGS = talks.talk("findings")


@pytest.mark.parametrize("number", range(1, len(FINDINGS.steps) + 1))
def test_each_finding_is_shown_with_figures(shipped: None, number: int) -> None:
    step = FINDINGS.steps[number - 1]
    view, _ = view_of(step.view)
    if step.page == "circuit":
        stepping_job(view)
    test = ready(app(talk="findings", step=str(number), presenting="1"))
    assert not [each.value for each in (*test.error, *test.warning)]
    assert test.query_params["step"] == str(number)
    body = "".join(each.proto.body for each in test.main.get("html"))
    assert step.title in body
    if step.page == "circuit":
        assert sum("n = 200" in figure["below"] for figure in drawn(test)["shown"]) >= 2
    assert not any(info.value.startswith("Press Run") for info in test.info)


def stepping_job(view: Any) -> None:
    from shell.frame import waiting

    waiting.preparation(view.setting).future.result(120)


def test_steps_follow_each_other_and_b_brings_one_back() -> None:
    session_of("base")
    view = {"n": "50"}
    talks.keep(
        "mine",
        Talk(
            "Mine",
            (
                Step("One", view=view | {"off": "A4.2"}),
                Step("Two", page="compare", view=view, choices={"compared": ["chat", "base"]}),
                Step("Three", page="discover", view=view, choices={"discover_n": 20}),
            ),
        ),
    )
    test = app(talk="mine", presenting="1")
    assert test.query_params["off"] == "A4.2"
    assert test.button(key="step_back").disabled
    test.button(key="step_on").click().run()
    assert not test.exception
    assert test.query_params["step"] == "2"
    compared = test.multiselect(key="compared")
    assert compared.value == ["chat", "base"]
    compared.set_value(["base"]).run()
    test.button(key="step_again").click().run()
    assert test.multiselect(key="compared").value == ["chat", "base"]
    test.button(key="step_on").click().run()
    assert test.number_input(key="discover_n").value == 20
    assert test.button(key="step_on").disabled
    test.button(key="unseen_first").click().run()
    assert test.query_params["step"] == "1"
    assert test.query_params["off"] == "A4.2"
    assert following.presented("mine").step == 0  # type: ignore[union-attr]
    assert {*test.session_state["circuit_for"]} == {ENTITY_TRACKING.family}


def test_the_ioi_talk_says_what_it_needs() -> None:
    test = app(talk="ioi", presenting="1")
    assert not test.exception
    assert any("make real" in each.value for each in test.warning)
    assert any("make real" in each for each in (talks.talk("ioi").needs,))


def test_a_talk_that_is_not_there_is_said_and_the_page_works() -> None:
    session_of("base")
    test = app(talk="nowhere", n="50")
    assert not test.exception
    assert any("no talk" in each.value for each in test.sidebar.error)
    assert figures(test)


def test_the_page_of_talks_shows_and_changes_them() -> None:
    session_of("base")
    talks.keep("mine", Talk("Mine", (Step("One"), Step("Two"))))
    test = app(n="50").switch_page("pages/talks.py").run()
    test.selectbox(key="talk_chosen").select("mine").run()
    test.button(key="↓_mine_0").click().run()
    assert [step.title for step in talks.talk("mine").steps] == ["Two", "One"]
    test.text_input(key="talk_title_mine").set_value("Yours").run()
    assert talks.talk("mine").title == "Yours"
    test.button(key="✕_mine_0").click().run()
    assert [step.title for step in talks.talk("mine").steps] == ["One"]
    assert not test.exception


@pytest.mark.parametrize("page", kept.PAGES)
def test_what_a_page_keeps_comes_back(page: str) -> None:
    """Every choice that is written can be read again as the same."""
    session_of("base")
    test = app(n="50")
    if page != "circuit":
        test.switch_page(f"pages/{page}.py").run()
    session: Any = test.session_state
    data = json.loads(json.dumps(kept.written(page, ENTITY_TRACKING, session)))
    found = kept.read(page, ENTITY_TRACKING, data)
    assert found == {name: session[name] for name in data}


def test_settings_and_heads_of_ones_own_are_there_when_their_step_is_given() -> None:
    session_of("base")
    view = {"n": "50"}
    settings = {"dcm_rate": 0.5, "dcm_sweep": True, "dcm_among": "all"}
    pinned = Site(Head(4, 2), "last")
    talk = Talk(
        "Mine",
        (
            Step("One", page="function", view=view, choices=settings),
            Step("Two", page="cmap", view=view, choices={PINNED: [[[4, 2], "last"]]}),
        ),
    )
    talks.keep("mine", talk)
    test = app(talk="mine")
    assert test.number_input(key="dcm_rate").value == 0.5
    assert test.toggle(key="dcm_sweep").value
    test.button(key="sidebar_▶").click().run()
    assert test.session_state[PINNED] == [pinned]
    assert not test.exception


def test_missing_models_are_named() -> None:
    step = Step("t", page="compare", view={"model": "gone"}, choices={"compared": ["base", "lost"]})
    assert stepping.missing(step) == ["gone", "lost"]
    assert stepping.missing(Step("t", page="compare", choices={"compared": ["base"]})) == []
