"""Circuits as data: reading, writing and refusing."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.errors import UserError
from backend.core.heads import Head, ModelShape, Site
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING

heads = st.lists(st.tuples(st.integers(0, 31), st.integers(0, 31)), max_size=6, unique=True)
circuits = st.fixed_dictionaries(dict.fromkeys(ENTITY_TRACKING.keys, heads))


@given(circuits)
def test_json_brings_back_the_circuit(groups: dict[str, list[tuple[int, int]]]) -> None:
    circuit = Circuit.of(
        ENTITY_TRACKING,
        {g: tuple(sorted(Head(*pair) for pair in groups[g])) for g in ENTITY_TRACKING.keys},
        "mine",
    )
    again = Circuit.from_json(circuit.to_json())
    assert again == circuit
    assert again.sites == circuit.sites


def test_the_authors_own_files_are_read() -> None:
    text = """{"value_fetcher": [[3, 1], [2, 2]], "pos_transmitter": [[2, 0]],
    "pos_detector": [[1, 2]], "struct_reader": [[0, 1]]}"""
    circuit = Circuit.from_json(text)
    assert circuit.heads("A") == (Head(2, 2), Head(3, 1))
    assert [circuit.heads(group) for group in ("B", "C", "D")] == [
        (Head(2, 0),),
        (Head(1, 2),),
        (Head(0, 1),),
    ]
    assert Circuit.from_json(circuit.to_json()) == circuit
    assert Circuit.from_json('{"pos_detector": [[1, 2]]}').members == (("C", Head(1, 2)),)


def test_sites_join_groups_at_one_token() -> None:
    circuit = Circuit.of(
        ENTITY_TRACKING, {"A": (Head(1, 2),), "B": (Head(1, 2),), "C": (Head(1, 2),)}
    )
    assert circuit.sites == {
        Site(Head(1, 2), "last"),
        Site(Head(1, 2), "query_label"),
    }
    assert len(circuit.members) == 3


def test_keep_is_a_smaller_circuit() -> None:
    circuit = Circuit.of(ENTITY_TRACKING, {"A": (Head(1, 2), Head(3, 1)), "D": (Head(0, 0),)})
    assert circuit.keep([("A", Head(3, 1))]).members == (("A", Head(3, 1)),)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "not a circuit file"),
        ("[" * 100_000, "not a circuit file"),
        ("[]", "groups"),
        ('{"groups": 3}', "groups"),
        ('{"groups": {"A": 3}}', "groups.A"),
        ('{"groups": {"B": [[1]]}}', "groups.B"),
        ('{"groups": {"C": [[1, -2]]}}', "groups.C"),
        ('{"groups": {"D": [[1, true]]}}', "groups.D"),
        ('{"groups": {"D": [["1", 2]]}}', "groups.D"),
        ('{"groups": {}, "provenance": 1}', "provenance"),
        ('{"value_fetcher": 3}', "value_fetcher"),
        ('{"struct_reader": [[1, "2"]]}', "struct_reader"),
        ('{"other": [[1, 2]]}', "groups"),
        ('{"groups": {}}', "“groups” holds \\[\\].*Write the heads of A, B, C and D"),
        ('{"groups": {"Value Fetcher": [[1, 2]]}}', "“groups” holds .*Value Fetcher"),
        ('{"groups": {"a": [[1, 2]], "B": [[1, 2]]}}', '“groups” holds .*"a"'),
        ('{"groups": {"A": {"1": 2}}}', "groups.A"),
        ('{"groups": {"A": [[1, 2.0]]}}', "groups.A"),
        ('{"groups": {"A": [[10000, 0]]}}', "groups.A"),
        ('{"groups": {"A": [[0, 1, 2]]}}', "groups.A"),
        ('{"groups": {"A": [null]}}', "groups.A"),
        (f'{{"groups": {{"A": [[0, {"9" * 40}]]}}}}', "groups.A"),
        (f'{{"groups": {{"A": [[0, {"9" * 5000}]]}}}}', "a number of 5000 digits"),
        (f'{{"groups": {{"A": ["{"x" * 5000}"]}}}}', "groups.A.*xxx….*Write each head"),
        ('{"groups": {"A": []}, "name": 3}', "name"),
        ('{"groups": {"A": []}, "name": ""}', "name"),
        (f'{{"groups": {{"A": []}}, "name": "{"x" * 501}"}}', "name"),
        (r'{"groups": {"A": []}, "name": "two\nlines"}', "name"),
        (r'{"groups": {"A": []}, "name": "\u202egnp"}', "name"),
        (r'{"groups": {"A": []}, "name": "\ud800"}', "half of a letter"),
        (r'{"groups": {"A": []}, "provenance": {"\udfff": 1}}', "half of a letter"),
        (f'{{"groups": {{"A": []}}, "provenance": {{"a": {"[" * 70}{"]" * 70}}}}}', "deep"),
        (b'{"groups": {"A": []}, "name": "\xff"}', "not text"),
    ],
)
def test_a_malformed_file_is_refused_by_field(text: str | bytes, field: str) -> None:
    with pytest.raises(UserError, match=field):
        Circuit.from_json(text)


def test_a_circuit_without_heads_is_one() -> None:
    assert Circuit.from_json('{"groups": {"A": []}}').members == ()
    assert Circuit.from_json(Circuit.of(ENTITY_TRACKING, {}).to_json()).members == ()


def test_figures_that_are_not_numbers_are_written_as_json_has_them() -> None:
    circuit = Circuit.of(
        ENTITY_TRACKING, {}, provenance={"scores": {"A": [[float("nan"), float("inf"), 1.0]]}}
    )
    again = json.loads(circuit.to_json(), parse_constant=pytest.fail)
    assert again["provenance"]["scores"]["A"] == [[None, None, 1.0]]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_json_is_read_or_refused(content: object) -> None:
    for data in (content, {"groups": content}, {"groups": {"A": content}}):
        with suppress(UserError):
            assert isinstance(Circuit.from_json(json.dumps(data)), Circuit)


def test_heads_outside_the_model_are_named() -> None:
    circuit = Circuit.of(ENTITY_TRACKING, {"B": (Head(5, 0),)}, "mine")
    circuit.check(ModelShape(6, 1, 1, 8), "base")
    with pytest.raises(UserError, match=r"L5\.0 in group B, but base has only 5 layers"):
        circuit.check(ModelShape(5, 8, 8, 16), "base")


@pytest.mark.parametrize("name", ["", "L1", "1.2", "L1.2.3", "L-1.2", "l1.2", "L1.2 ", "L１.2"])
def test_other_words_are_not_heads(name: str) -> None:
    with pytest.raises(UserError, match="is not a head"):
        Head.parse(name)


def test_head_names_go_both_ways() -> None:
    assert Head.parse(str(Head(14, 27))) == Head(14, 27)
