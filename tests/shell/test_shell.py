"""What is on the page as a value: history and addresses."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.heads import Head
from backend.core.metrics import Metric
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.setting import Mode, Reading
from shell.frame.history import History, Switches
from shell.frame.view import PROMPT_COUNTS, View, from_query, to_query

nodes = st.frozensets(
    st.tuples(
        st.sampled_from(ENTITY_TRACKING.keys),
        st.builds(Head, st.integers(0, 99), st.integers(0, 99)),
    ),
    max_size=8,
)
names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=60)
views = st.builds(
    View,
    model=names,
    circuit=names,
    n=st.sampled_from(PROMPT_COUNTS),
    seed=st.integers(0, 2**31 - 1),
    options=st.tuples(st.integers(2, 10)),
    reading=st.sampled_from(Reading),
    mode=st.sampled_from(Mode),
    metric=st.sampled_from(Metric),
    source=names,
    desideratum=st.sampled_from(["", *(each.name for each in ENTITY_TRACKING.desiderata)]),
    off=nodes,
    switched=nodes,
    outside=st.booleans(),
    contributions=st.booleans(),
    example=st.integers(0, max(PROMPT_COUNTS) - 1),
    presenting=st.booleans(),
)


@given(views)
def test_an_address_brings_back_the_view(view: View) -> None:
    query = dict(parse_qsl(urlencode(to_query(view)), keep_blank_values=True))
    assert from_query(query) == (view, [])


def test_the_plain_page_has_a_plain_address() -> None:
    assert to_query(View()) == {}


def test_an_address_of_before_means_what_it_meant() -> None:
    query = {"mode": "counterfactual", "reading": "model", "off": "A1.2"}
    view, complaints = from_query(query)
    assert not complaints
    assert (view.mode, view.reading, view.metric) == (
        Mode.counterfactual,
        Reading.model,
        Metric.accuracy,
    )
    assert to_query(view) == query


@given(st.dictionaries(st.sampled_from([*View.__dataclass_fields__, "boxes", "else"]), st.text()))
def test_rubbish_is_named_and_the_rest_kept(query: dict[str, str]) -> None:
    view, complaints = from_query(query)
    assert len(complaints) <= len(query)
    assert from_query(to_query(view)) == (view, [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n", "0"), ("n", "7"), ("n", "many"), ("n", "1e3"), ("seed", "-1"), ("boxes", "0"),
        ("boxes", "100"), ("off", "E1.2"), ("off", "A1"), ("off", "A1.2,,"), ("mode", "smash"),
        ("reading", ""), ("example", "99999"), ("model", ""), ("model", "x" * 600),
        ("outside", "yes"), ("metric", "loss"), ("seed", "9" * 5000), ("desideratum", "smell"),
    ],
)  # fmt: skip
def test_each_bad_parameter_is_named(name: str, text: str) -> None:
    view, complaints = from_query({name: text, "seed": "3"} | {name: text})
    assert len(complaints) == 1
    assert complaints[0].startswith(f"“{name}=")
    shown, plain = (vars(each) | {"boxes": each.prompts.options} for each in (view, View()))
    assert shown[name] == plain[name]
    assert view.seed == (0 if name == "seed" else 3)


@given(st.lists(st.sampled_from(["undo", "redo"]) | nodes, max_size=30))
def test_history_is_an_editors(steps: list[object]) -> None:
    history, before, after = History(), [], []
    now = Switches()
    for step in steps:
        if step == "undo":
            history = history.undo()
            if before:
                after.append(now)
                now = before.pop()
        elif step == "redo":
            history = history.redo()
            if after:
                before.append(now)
                now = after.pop()
        else:
            switches = Switches(step)  # type: ignore[arg-type]
            history = history.set(switches)
            if switches != now:
                before.append(now)
                now, after = switches, []
        assert history.now == now


def test_there_and_back_is_no_step() -> None:
    node = ("A", Head(4, 1))
    start = History().set(Switches(frozenset({("B", Head(3, 0))})))
    there_and_back = start.set(Switches(frozenset({node}))).set(start.now)
    assert there_and_back.without_detour() == start
    assert start.without_detour() == start
    assert History().without_detour() == History()
