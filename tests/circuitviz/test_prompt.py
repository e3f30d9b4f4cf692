"""The prompt as HTML: readable, marked, and harmless."""

from __future__ import annotations

import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from backend.tasks.entity_tracking import ENTITY_TRACKING, sample_prompts
from circuitviz.prompt import prompt_html
from tests.tiny import word_tokenizer


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html))


def test_the_prompt_reads_as_it_was_written() -> None:
    prompts = sample_prompts(word_tokenizer(), 1)
    html = prompt_html(prompts.words(0), prompts.roles_of(0), ENTITY_TRACKING, "clock")
    assert text_of(html) == f"{prompts.texts[0]} clock"
    assert html.count('class="marked"') == 5


names = st.sampled_from([None, *(role.name for role in ENTITY_TRACKING.roles)])


@given(st.lists(st.tuples(st.text(), names), max_size=8), st.text())
def test_words_cannot_become_markup(tokens: list[tuple[str, str | None]], answer: str) -> None:
    words, roles = [word for word, _ in tokens], [role for _, role in tokens]
    html = prompt_html(words, roles, ENTITY_TRACKING, answer)
    assert set(re.findall(r"<(/?\w+)", html)) <= {"div", "/div", "span", "/span"}
