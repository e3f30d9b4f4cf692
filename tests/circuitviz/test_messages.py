"""Messages of the circuit component: good ones are read, all others are no message."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.heads import Head
from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.component import Message, parse_message
from circuitviz.picture import node_id

keys = st.tuples(
    st.sampled_from(list(ENTITY_TRACKING.keys)),
    st.builds(Head, st.integers(0, 99), st.integers(0, 99)),
)
messages = st.builds(
    Message,
    st.integers(0),
    st.integers(),
    st.frozensets(keys),
    st.frozensets(keys),
    st.none() | keys,
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def as_sent(message: Message) -> dict[str, Any]:
    return {
        "sequence": message.sequence,
        "epoch": message.epoch,
        "off": [node_id(key) for key in message.off],
        "switched": [node_id(key) for key in message.switched],
        "lookedAt": message.looked_at and node_id(message.looked_at),
    }


@given(messages)
def test_a_message_survives_the_journey(message: Message) -> None:
    assert parse_message(as_sent(message)) == message


@given(junk)
def test_junk_is_no_message(raw: object) -> None:
    assert parse_message(raw) is None


@given(messages, st.sampled_from(["sequence", "epoch", "off", "switched", "lookedAt"]), junk)
def test_a_spoilt_field_never_raises(message: Message, name: str, spoilt: object) -> None:
    parsed = parse_message({**as_sent(message), name: spoilt})
    assert parsed is None or isinstance(parsed, Message)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"sequence": True},
        {"sequence": -1},
        {"sequence": 1.0},
        {"epoch": "0"},
        {"off": "A L1.2"},
        {"off": ["e L1.2"]},
        {"off": ["A L1"]},
        {"off": [["A", 1, 2]]},
        {"off": None},
        {"switched": {}},
    ],
)
def test_wrong_fields_are_no_message(spoilt: dict[str, Any]) -> None:
    good = as_sent(Message(1, 0, frozenset()))
    assert parse_message(good) is not None
    assert parse_message({**good, **spoilt}) is None


def test_old_and_overruled_messages_are_no_news() -> None:
    message = Message(sequence=3, epoch=1, off=frozenset())
    assert message.is_news(served_sequence=2, epoch=1)
    assert not message.is_news(served_sequence=3, epoch=1)
    assert not message.is_news(served_sequence=2, epoch=2)
