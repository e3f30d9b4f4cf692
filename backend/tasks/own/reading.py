"""A prompt in a user's own words, read in the form of an own task's sentences."""

from __future__ import annotations

import re
from itertools import count

from backend.tasks.own.form import END, Form, Slot, between, slots_in
from backend.tasks.written import Written, words_of


def read(form: Form, text: str) -> Written | None:
    """The text with its words named, and its answer and competitors where its words tell them.

    None where no sentence of the task has this form, or where the answer is not told by its words.
    """
    for template in form.templates:
        found = _pattern(form, template).fullmatch(text)
        if found and (words := _words(form, found.groupdict())):
            answer, *others = (words[name] for name in (form.answer, *form.competitors))
            marks = _marks(form, template, found, text)
            if marks and answer not in others:
                return Written(text, answer, tuple(dict.fromkeys(others)), marks)
    return None


def _pattern(form: Form, template: str) -> re.Pattern[str]:
    """A prompt of this sentence, with any words in its slots; the same one where a slot recurs."""
    *texts, _, _ = between(template)
    last = between(template)[-2]
    slots, seen, pattern = slots_in(template)[:-1], set[str](), ""
    for words, slot in zip(texts, slots, strict=True):
        word = f"(?P={slot})" if slot in seen else rf"(?P<{slot}>\S(?:.*?\S)?)"
        pattern += f"{re.escape(words)}{word}"
        seen.add(slot)
    return re.compile(pattern + re.escape(last.rstrip()))


def _words(form: Form, given: dict[str, str]) -> dict[str, str] | None:
    """The word of every slot; of those that are not in the sentence, the first that is allowed."""
    words = dict(given)
    for name, slot in form.slots.items():
        if slot.of:
            word = _word_for(slot, words[slot.of])
            if word is None or words.setdefault(name, word) != word:
                return None
        elif name not in words:
            same = {words[each] for each in words if form.slots[each].like == slot.like}
            free = (
                [] if slot.relations or not slot.like else [w for w in slot.pool if w not in same]
            )
            if not free:
                return None
            words[name] = free[0]
    return words


def _word_for(slot: Slot, word: str) -> str | None:
    return word if slot.by is None else slot.by.get(word)


def _marks(
    form: Form, template: str, found: re.Match[str], text: str
) -> tuple[tuple[str, int], ...] | None:
    """A letter of each token that has a name; None if one is not there."""
    ends, start = dict[tuple[str, int], tuple[int, int]](), 0
    times = {slot: count(1) for slot in form.slots}
    for words, slot in zip(between(template), slots_in(template)[:-1], strict=False):
        first = start + len(words)
        start = first + len(found[slot])
        ends[slot, next(times[slot])] = first, start - 1
    places = [end - 1 for _, _, end in words_of(text)]
    marks = []
    for token in form.tokens:
        if token.at == END:
            marks.append((token.name, len(text) - 1))
            continue
        first, last = ends[token.at, token.occurrence]
        later = [place for place in places if place >= last]
        if token.after >= len(later):
            return None
        marks.append((token.name, first if token.is_first else later[token.after]))
    return tuple(marks)
