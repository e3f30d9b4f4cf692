"""Prompts that a user writes: read in the task's form, marked by hand, and what is wrong said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backend.core.errors import UserError
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts
from backend.tasks.task import Task
from backend.tasks.written import (
    MAX_CHARACTERS,
    Written,
    complaints,
    encode,
    rewritten,
    words_of,
    written_as,
)
from tests import planted_ioi, tiny

TOKENIZERS = {ENTITY_TRACKING.name: tiny.word_tokenizer(), IOI.name: planted_ioi.tokenizer()}
FREE = "Look: the apple is in Box F and nothing is in Box Q, so Box F contains the"


def word_at(prompt: Written, character: int) -> str:
    """The word that has this character, found letter by letter."""
    start = end = character
    while start and prompt.text[start - 1].isalnum():
        start -= 1
    while end + 1 < len(prompt.text) and prompt.text[end + 1].isalnum():
        end += 1
    return prompt.text[start : end + 1]


def example(task: Task = ENTITY_TRACKING, row: int = 0) -> Written:
    tokenizer = TOKENIZERS[task.name]
    return written_as(Prompts(task, 8, 0).sample(tokenizer), row, tokenizer)


@pytest.mark.parametrize("task", [ENTITY_TRACKING, IOI], ids=lambda task: task.name)
def test_the_tasks_own_prompts_are_read_as_they_were_drawn(task: Task) -> None:
    tokenizer = TOKENIZERS[task.name]
    drawn = Prompts(task, 8, 0).sample(tokenizer)
    for row in range(len(drawn)):
        prompt = written_as(drawn, row, tokenizer)
        read = task.read(prompt.text)
        assert read is not None
        assert read.answer == prompt.answer
        assert {*read.competitors} == {*prompt.competitors}
        assert {*read.marks} == {*prompt.marks}
        one = encode(tokenizer, task, read)
        assert one.input_ids.tolist() == drawn.input_ids[[row]].tolist()
        assert one.answer_ids.tolist() == [drawn.answer_ids[row]]
        assert {*one.choice_ids[0]} == {*drawn.choice_ids[row]}
        for name in task.position_names:
            assert one.positions[name].tolist() == [drawn.positions[name][row]]
        for role in task.roles:
            assert {*one.roles[role.name][0]} == {*drawn.roles[role.name][row]}
        assert one.roles_of(0) == drawn.roles_of(row)


@pytest.mark.parametrize(
    "text",
    [
        FREE,
        "The apple is in Box F, the brain is in Box Q. Box Z contains the",
        "The apple is in Box F, the brain is in Box F. Box F contains the",
        "",
    ],
)
def test_another_form_is_not_read_as_the_tasks(text: str) -> None:
    assert ENTITY_TRACKING.read(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "When Mary and John went to the shop, Paul gave a book to",
        "When Mary and Mary went to the shop, Mary gave a book to",
        "When Mary went to the shop, Mary gave a book to",
    ],
)
def test_a_sentence_without_a_subject_that_comes_twice_is_not_read(text: str) -> None:
    assert IOI.read(text) is None


def test_another_box_asked_for_has_another_answer() -> None:
    prompt = ENTITY_TRACKING.read(
        "The apple is in Box F, the brain is in Box Q. Box Q contains the"
    )
    assert prompt is not None
    asked = rewritten(
        ENTITY_TRACKING, prompt, prompt.text.replace("Box Q contains", "Box F contains")
    )
    assert (prompt.answer, asked.answer) == ("brain", "apple")
    assert word_at(asked, asked.at("prev_query_label")[0]) == "F"


def test_marks_answer_and_competitors_follow_their_words_in_free_text() -> None:
    prompt = replace(example(), text=FREE, answer="apple", competitors=("nothing",), marks=())
    places = {word: end - 1 for word, _, end in words_of(FREE)}
    first_f = FREE.index("Box F") + 4
    for name, character in (
        ("prev_query_label", first_f),
        ("query_label", places["F"]),
        ("last", places["the"]),
    ):
        prompt = prompt.marked(name, character)
    changed = rewritten(
        ENTITY_TRACKING,
        prompt,
        "  Well, look: the stone is in Box Z and little is in Box Q, so Box Z contains a ",
    )
    assert changed.text == changed.text.strip()
    assert (changed.answer, changed.competitors) == ("stone", ("little",))
    assert [word_at(changed, changed.at(name)[0]) for name in ENTITY_TRACKING.position_names] == [
        "Z",
        "Z",
        "a",
    ]
    assert changed.at("query_label")[0] == changed.text.rindex("Z")


def test_a_word_taken_out_takes_its_mark_along() -> None:
    prompt = example()
    cut = rewritten(ENTITY_TRACKING, prompt, prompt.text[: prompt.text.index(". Box") + 1] + " The")
    assert not cut.at("query_label")
    assert cut.at("last") == (len(cut.text) - 1,)


def without(prompt: Written, name: str) -> Written:
    return replace(prompt, marks=tuple(mark for mark in prompt.marks if mark[0] != name))


def swapped(prompt: Written) -> Written:
    query, previous = prompt.at("query_label")[0], prompt.at("prev_query_label")[0]
    return prompt.marked("query_label", previous).marked("prev_query_label", query)


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        (lambda p: replace(p, text=""), "text", "no text"),
        (lambda p: replace(p, text="a" * (MAX_CHARACTERS + 1)), "text", "shorter"),
        (lambda p: replace(p, text=f"zebroid {p.text}"), "text", "“zebroid”"),
        (lambda p: replace(p, answer=""), "answer", "click it"),
        (lambda p: replace(p, answer="zebroid"), "answer", "“zebroid”"),
        (lambda p: replace(p, answer="apple brain"), "answer", "one token"),
        (lambda p: replace(p, competitors=(p.answer,)), "competitors", "the answer itself"),
        (lambda p: replace(p, competitors=("zebroid",)), "competitors", "“zebroid”"),
        (lambda p: replace(p, competitors=tuple(map(str, range(51)))), "competitors", "at most"),
        (lambda p: without(p, "query_label"), "positions", "label asked for"),
        (swapped, "positions", "this order"),
    ],
)
def test_what_cannot_work_is_said_at_its_field(change: Any, field: str, said: str) -> None:
    prompt = change(example())
    found = complaints(TOKENIZERS[ENTITY_TRACKING.name], ENTITY_TRACKING, prompt)
    assert said in found[field]
    assert not {*found} - {field, "positions"}
    with pytest.raises(UserError):
        encode(TOKENIZERS[ENTITY_TRACKING.name], ENTITY_TRACKING, prompt)


def test_a_prompt_needs_no_competitors() -> None:
    one = encode(
        TOKENIZERS[ENTITY_TRACKING.name], ENTITY_TRACKING, replace(example(), competitors=())
    )
    assert np.array_equal(one.choice_ids, one.answer_ids[:, None])
