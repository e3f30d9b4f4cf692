"""Messages of the circuit component: good ones are read, all others are no message."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.heads import Head
from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.component import Message, Step, parse_message
from circuitviz.picture import node_id

keys = st.tuples(
    st.sampled_from(list(ENTITY_TRACKING.keys)),
    st.builds(Head, st.integers(0, 99), st.integers(0, 99)),
)
steps = st.builds(Step, st.integers(0), st.frozensets(keys), st.frozensets(keys))
messages = st.builds(
    Message, st.integers(), st.lists(steps, min_size=1, max_size=4).map(tuple), st.none() | keys
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def as_sent(message: Message) -> dict[str, Any]:
    return {
        "epoch": message.epoch,
        "steps": [step_as_sent(step) for step in message.steps],
        "lookedAt": message.looked_at and node_id(message.looked_at),
    }


def step_as_sent(step: Step) -> dict[str, Any]:
    return {
        "sequence": step.sequence,
        "off": [node_id(key) for key in step.off],
        "switched": [node_id(key) for key in step.switched],
    }


@given(messages)
def test_a_message_survives_the_journey(message: Message) -> None:
    assert parse_message(as_sent(message)) == message


@given(junk)
def test_junk_is_no_message(raw: object) -> None:
    assert parse_message(raw) is None


@given(messages, st.sampled_from(["epoch", "steps", "lookedAt"]), junk)
def test_a_spoilt_field_never_raises(message: Message, name: str, spoilt: object) -> None:
    parsed = parse_message({**as_sent(message), name: spoilt})
    assert parsed is None or isinstance(parsed, Message)


@given(steps, st.sampled_from(["sequence", "off", "switched"]), junk)
def test_a_spoilt_step_never_raises(step: Step, name: str, spoilt: object) -> None:
    parsed = parse_message({"epoch": 0, "steps": [{**step_as_sent(step), name: spoilt}]})
    assert parsed is None or isinstance(parsed, Message)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"sequence": True},
        {"sequence": -1},
        {"sequence": 1.0},
        {"off": "A L1.2"},
        {"off": ["e L1.2"]},
        {"off": ["A L1"]},
        {"off": [["A", 1, 2]]},
        {"off": None},
        {"switched": {}},
    ],
)
def test_one_wrong_step_makes_no_message(spoilt: dict[str, Any]) -> None:
    good = step_as_sent(Step(1, frozenset()))
    assert parse_message({"epoch": 0, "steps": [good]}) is not None
    assert parse_message({"epoch": 0, "steps": [good, {**good, **spoilt}]}) is None


@pytest.mark.parametrize("spoilt", [{"epoch": "0"}, {"steps": []}, {"steps": {}}, {"steps": [1]}])
def test_wrong_fields_are_no_message(spoilt: dict[str, Any]) -> None:
    good = as_sent(Message(0, (Step(1, frozenset()),)))
    assert parse_message({**good, **spoilt}) is None


def test_old_and_overruled_steps_are_no_news() -> None:
    first, second = Step(2, frozenset()), Step(3, frozenset())
    message = Message(1, (first, second))
    assert message.news(served_sequence=1, epoch=1) == (first, second)
    assert message.news(served_sequence=2, epoch=1) == (second,)
    assert message.news(served_sequence=3, epoch=1) == ()
    assert message.news(served_sequence=0, epoch=2) == ()
