"""Pairs of prompts as HTML: what is marked in them is what decides the expected answer."""

from __future__ import annotations

import re
from html import unescape

import pytest

from backend.tasks.desiderata import Pairs
from backend.tasks.entity_tracking import ENTITY_TRACKING, sample_prompts
from circuitviz.charts import EXPECTED, RIGHT
from circuitviz.pairs import VARIABLE, alternate_html, base_html
from tests.tiny import word_tokenizer

_MARKED = re.compile(r'<span class="marked" style="--mark: (\S+)"[^>]*>([^<]*)</span>')


def pairs_of(name: str) -> Pairs:
    tokenizer = word_tokenizer()
    base = sample_prompts(tokenizer, 6, 0, 4)
    return ENTITY_TRACKING.desideratum(name).draw(tokenizer, base, 0)


def marked(html: str, colour: str) -> list[str]:
    return [unescape(word) for found, word in _MARKED.findall(html) if found == colour]


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html))


@pytest.mark.parametrize("name", ["object", "label", "position"])
@pytest.mark.parametrize("by_role", [False, True])
def test_what_is_expected_is_marked_wherever_it_stands(name: str, by_role: bool) -> None:
    pairs, tokenizer = pairs_of(name), word_tokenizer()
    for place in range(len(pairs.base)):
        base = base_html(pairs, place, "?", by_role=by_role)
        alternate = alternate_html(pairs, place, "?")
        assert text_of(base) == f"{pairs.base.texts[place]} ?"
        assert text_of(alternate) == f"{pairs.alternate.texts[place]} ?"
        expected = tokenizer.decode([int(pairs.expected_ids[place])])
        in_base, in_alternate = (marked(html, EXPECTED) for html in (base, alternate))
        assert in_base == ([] if name == "object" else [expected])
        assert in_alternate == ([expected] if name == "object" else [])


def test_a_label_that_both_prompts_have_is_marked_in_both() -> None:
    pairs = pairs_of("label")
    for place in range(len(pairs.base)):
        label = str(pairs.alternate.drawn["query_labels"][place])
        assert marked(alternate_html(pairs, place, "?"), VARIABLE) == [label, label]
        assert marked(base_html(pairs, place, "?"), VARIABLE) == [label]


def test_the_bases_own_answer_is_marked_unless_tokens_have_their_groups_colours() -> None:
    pairs = pairs_of("position")
    own = word_tokenizer().decode([int(pairs.base.answer_ids[0])])
    assert marked(base_html(pairs, 0, own), RIGHT) == [own, own]
    colours = {group.colour for group in ENTITY_TRACKING.groups}
    found = {colour for colour, _ in _MARKED.findall(base_html(pairs, 0, own, by_role=True))}
    assert colours <= found
