"""A prompt in a user's own words, with its named tokens marked in the text (no torch).

Marks are places in the text, not in the tokens, so that models with other tokenizers read the same
prompt. Editing the text carries them along: a mark stays on its word, or on the one written in its
place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from backend.core.errors import UserError
from backend.tasks.prompts import PromptSet
from backend.tasks.task import Task
from backend.tasks.vocabulary import next_tokens, tokenized, tokens_at

MAX_CHARACTERS, MAX_COMPETITORS = 4000, 50
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Written:
    """A text, the word that should come next, and those that it competes with.

    marks: (name, character), the last of the word at which a position or a role of the task is; a
    position has one at most.
    """

    text: str
    answer: str = ""
    competitors: tuple[str, ...] = ()
    marks: tuple[tuple[str, int], ...] = ()

    def at(self, name: str) -> tuple[int, ...]:
        """The characters that are marked with a name."""
        return tuple(character for each, character in self.marks if each == name)

    def marked(self, name: str, character: int) -> Written:
        """The same with a position's one mark there."""
        others = tuple(mark for mark in self.marks if mark[0] != name)
        return replace(self, marks=(*others, (name, character)))


def written_as(prompts: PromptSet, row: int, tokenizer: Any) -> Written:
    """One of the task's own prompts, to be edited."""
    ends = prompts.spans[row, :, 1] - 1
    named = dict(prompts.roles) | {name: at[:, None] for name, at in prompts.positions.items()}
    marks = ((name, int(ends[token])) for name, tokens in named.items() for token in tokens[row])
    answer = int(prompts.answer_ids[row])
    others = (int(token) for token in prompts.choice_ids[row] if token != answer)

    def word(token: int) -> str:
        return str(tokenizer.decode([token])).strip()

    competitors = tuple(dict.fromkeys(map(word, others)))
    return Written(prompts.texts[row], word(answer), competitors, tuple(marks))


def words_of(text: str) -> list[tuple[str, int, int]]:
    """The words of a text, and from where to where they go."""
    return [(found[0], found.start(), found.end()) for found in _WORD.finditer(text)]


def rewritten(task: Task, before: Written, text: str) -> Written:
    """Another text in the place of one: read in the task's form, else with the marks it had."""
    text = text.strip()
    return task.read(text) or _followed(before, text)


def _followed(before: Written, text: str) -> Written:
    """Marks, answer and competitors follow their words.

    A word that is replaced hands its marks on to the one in its place; where as many words do not
    stand there, they are lost. The mark of the last word stays on the last.
    """
    old, new = words_of(before.text), words_of(text)
    counterpart = dict(_counterparts([word for word, *_ in old], [word for word, *_ in new]))
    if old and new:
        counterpart[len(old) - 1] = len(new) - 1
    word_at = {at: i for i, (_, start, end) in enumerate(old) for at in range(start, end)}
    marks = []
    for name, character in before.marks:
        found = counterpart.get(word_at.get(character, -1))
        if found is not None:
            marks.append((name, new[found][2] - 1))
    renamed: dict[str, str] = {}
    for i, j in counterpart.items():
        renamed.setdefault(old[i][0], new[j][0])
    return Written(
        text,
        renamed.get(before.answer, before.answer),
        tuple(renamed.get(word, word) for word in before.competitors),
        tuple(marks),
    )


def _counterparts(old: list[str], new: list[str]) -> Iterable[tuple[int, int]]:
    """Which word of one text stands where one of the other stood."""
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind in ("equal", "replace") and b - a == d - c:
            yield from zip(range(a, b), range(c, d), strict=True)


def complaints(tokenizer: Any, task: Task, prompt: Written) -> dict[str, str]:
    """What keeps a model from being asked this, by field: text, answer, competitors, positions.

    Each says what to do next; positions only keep heads from being switched.
    """
    found: dict[str, str] = {}
    text = prompt.text
    if not text:
        return {"text": "There is no text yet. Write a prompt whose next word is the answer."}
    if len(text) > MAX_CHARACTERS:
        said = f"{len(text)} letters are more than {MAX_CHARACTERS}. Write a shorter prompt."
        return {"text": said}
    if unknown := _unknown_words(tokenizer, text):
        found["text"] = (
            f"This model does not know {_listed(unknown)}. Write other words, or choose another "
            "model."
        )
    if not prompt.answer:
        found["answer"] = "Write the word that should come next, or click it in the prompt."
    elif next_tokens(tokenizer, text, [prompt.answer]) == [None]:
        found["answer"] = _not_one_token([prompt.answer])
    if len(prompt.competitors) > MAX_COMPETITORS:
        found["competitors"] = f"Give at most {MAX_COMPETITORS} words."
    elif prompt.answer in prompt.competitors:
        found["competitors"] = f"“{prompt.answer}” is the answer itself. Take it out."
    else:
        told = zip(
            prompt.competitors, next_tokens(tokenizer, text, prompt.competitors), strict=True
        )
        if pieces := [word for word, token in told if token is None]:
            found["competitors"] = _not_one_token(pieces)
    ordered = [prompt.at(name) for name in task.position_names]
    if missing := [n for n, at in zip(task.position_names, ordered, strict=True) if not at]:
        found["positions"] = (
            f"Not marked: {', '.join(map(task.token_words, missing))}. Choose it "
            "under “A click marks”, and click its word."
        )
    elif (tokens := _tokens(tokenized(tokenizer, [text])[0][1], sum(ordered, ()))) != sorted(
        {*tokens}
    ):
        order = ", ".join(map(task.token_words, task.position_names))
        found["positions"] = f"The marks must stand in this order: {order}. Mark other words."
    return found


def encode(tokenizer: Any, task: Task, prompt: Written) -> PromptSet:
    """The prompt as a set of one; raises UserError with the first of its `complaints`.

    choice_ids has the answer first, then the competitors.
    """
    if found := complaints(tokenizer, task, prompt):
        raise UserError(next(iter(found.values())))
    text = prompt.text
    ids, spans = tokenized(tokenizer, [text])[0]
    choices = next_tokens(tokenizer, text, (prompt.answer, *prompt.competitors))
    at = {name: _tokens(spans, prompt.at(name)) for name, _ in prompt.marks}
    return PromptSet(
        task,
        (text,),
        input_ids=np.array([ids], dtype=np.int64),
        answer_ids=np.array(choices[:1], dtype=np.int64),
        choice_ids=np.array([choices], dtype=np.int64),
        positions={name: np.array(at[name]) for name in task.position_names},
        roles={
            role.name: np.array([at.get(role.name, [])], dtype=np.int64).reshape(1, -1)
            for role in task.roles
        },
        spans=np.array([spans], dtype=np.int64),
        drawn={},
        seed=0,
    )


def _tokens(spans: list[tuple[int, int]], characters: tuple[int, ...]) -> list[int]:
    """The tokens in which characters of the text are."""
    found: list[int] = tokens_at(np.array([spans]), np.array([characters]))[0].tolist()
    return found


def _unknown_words(tokenizer: Any, text: str) -> list[str]:
    ids, spans = tokenized(tokenizer, [text])[0]
    unknown = (
        text[a:b].strip()
        for token, (a, b) in zip(ids, spans, strict=True)
        if token == tokenizer.unk_token_id and b > a
    )
    return [*dict.fromkeys(unknown)]


def _not_one_token(words: Iterable[str]) -> str:
    return (
        f"This model does not write {_listed(words)} as one token after this prompt. Choose "
        "another word."
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"“{word}”" for word in words)
