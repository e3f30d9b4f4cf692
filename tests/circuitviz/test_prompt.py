"""The prompt as HTML: readable, marked, and harmless."""

from __future__ import annotations

import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from backend.tasks.entity_tracking import Role, sample_prompts
from circuitviz.prompt import prompt_html
from tests.tiny import word_tokenizer


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html))


def test_the_prompt_reads_as_it_was_written() -> None:
    prompts = sample_prompts(word_tokenizer(), 1)
    html = prompt_html(prompts.words(0), prompts.roles(0), "clock")
    assert text_of(html) == f"{prompts.texts[0]} clock"
    assert html.count('class="marked"') == 5


@given(st.lists(st.tuples(st.text(), st.sampled_from(Role)), max_size=8), st.text())
def test_words_cannot_become_markup(tokens: list[tuple[str, Role]], answer: str) -> None:
    html = prompt_html([word for word, _ in tokens], [role for _, role in tokens], answer)
    assert set(re.findall(r"<(/?\w+)", html)) <= {"div", "/div", "span", "/span"}
