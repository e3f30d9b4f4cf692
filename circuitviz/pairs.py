"""A base and an alternate prompt as text, with the tokens marked that decide what is expected."""

from __future__ import annotations

from collections.abc import Collection

from backend.tasks.desiderata import Pairs
from backend.tasks.prompts import PromptSet
from circuitviz.charts import EXPECTED, RIGHT
from circuitviz.prompt import Mark, prompt_html

VARIABLE = "#E69F00"
"""Of tokens that the variable is about: a colour that no group has."""


def base_html(pairs: Pairs, place: int, answer: str, *, by_role: bool = False) -> str:
    """The base prompt of a pair with an answer at its end, marked: its own, and what is expected.

    Tokens that say what the variable is in the alternate prompt are marked where they occur in this
    one. If it is shown `by_role`, tokens at which groups work have their colours, too.
    """
    prompts, alternate = pairs.base, pairs.alternate
    own, expected = int(prompts.answer_ids[place]), int(pairs.expected_ids[place])
    told = alternate.input_ids[place, _about(pairs, alternate, place)].tolist()
    of_variable, of_expected, of_own = (
        _of(prompts, place, ids, mark)
        for ids, mark in (
            (told, Mark(VARIABLE, "as in the alternate prompt")),
            ([expected], Mark(EXPECTED, "the expected answer")),
            ([own], Mark(RIGHT, "the base prompt’s own answer")),
        )
    )
    if by_role:
        marks = of_variable | of_expected
        words, roles = prompts.words(place), prompts.roles_of(place)
        return prompt_html(words, roles, prompts.task, answer, marks)
    return _plain(prompts, place, answer, of_variable | of_own | of_expected, RIGHT)


def alternate_html(pairs: Pairs, place: int, answer: str) -> str:
    """The alternate prompt of a pair with its own answer, and what the variable is in it marked."""
    prompts = pairs.alternate
    expected = int(pairs.expected_ids[place])
    about = dict.fromkeys(
        _about(pairs, prompts, place), Mark(VARIABLE, "what the variable is in this prompt")
    )
    marks = about | _of(prompts, place, [expected], Mark(EXPECTED, "the expected answer"))
    return _plain(prompts, place, answer, marks)


def _plain(
    prompts: PromptSet,
    place: int,
    answer: str,
    marks: dict[int, Mark],
    colour: str = "currentColor",
) -> str:
    words = prompts.words(place)
    return prompt_html(words, [None] * len(words), prompts.task, answer, marks, colour)


def _about(pairs: Pairs, prompts: PromptSet, place: int) -> list[int]:
    """Tokens of a prompt that the variable is about."""
    return sorted({int(at) for name in pairs.marked for at in prompts.roles[name][place]})


def _of(prompts: PromptSet, place: int, ids: Collection[int], mark: Mark) -> dict[int, Mark]:
    found = [at for at, token in enumerate(prompts.input_ids[place].tolist()) if token in ids]
    return dict.fromkeys(found, mark)
