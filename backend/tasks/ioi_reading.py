"""Sentences of indirect object identification that a user writes: who is named, and how often."""

from __future__ import annotations

from backend.tasks.ioi_words import OBJECTS, PLACES
from backend.tasks.written import Written, words_of


def read(text: str) -> Written | None:
    """The sentence with its words named; None unless three names stand in it, the last of them for
    the second time. A name is a word with a capital, other than the first word."""
    words = words_of(text)
    names = [i for i, (word, _, _) in enumerate(words) if i and word[0].isupper()]
    if len(names) != 3:
        return None
    *pair, s2 = names
    s1 = [i for i in pair if words[i][0] == words[s2][0]]
    if len(s1) != 1:
        return None
    (io,) = {*pair} - {*s1}
    named = {"s1": s1[0], "s1_plus_1": s1[0] + 1, "s2": s2, "io": io, "end": len(words) - 1}
    marks = [(name, words[i][2] - 1) for name, i in named.items()]
    for role, known in (("place", PLACES), ("object", OBJECTS)):
        marks += [(role, end - 1) for word, _, end in words if word in known]
    return Written(text, words[io][0], (words[s2][0],), tuple(marks))
