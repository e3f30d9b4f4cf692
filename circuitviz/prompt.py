"""A prompt as text in which every token is marked by its role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from backend.tasks.task import Role, Task
from circuitviz.palette import colours

_NO_SPACE_BEFORE = frozenset(".,")


_FILLER = Role("filler", "filler")


class Mark(NamedTuple):
    """What a token is marked as, whatever its role: a colour, and words for the pointer."""

    colour: str
    words: str


def prompt_html(
    words: Sequence[str],
    roles: Sequence[str | None],
    task: Task,
    answer: str,
    marks: Mapping[int, Mark] | None = None,
    answer_colour: str = "currentColor",
) -> str:
    """The tokens of a prompt [seq] with their roles [seq] as HTML, the model's answer at its end.

    The tokens at which a group works carry its colour, unless they have `marks` of their own; every
    token tells its role on hover. The classes are styled by the page.
    """
    known, looks, marks = {role.name: role for role in task.roles}, colours(task), marks or {}
    named = [known.get(role or "", _FILLER) for role in roles]
    tokens = [
        _token(word, role, marks.get(place) or _mark(role, looks))
        for place, (word, role) in enumerate(zip(words, named, strict=True))
        if word
    ]
    blank = f'<span class="marked" style="--mark: {answer_colour}">{escape(answer)}</span>'
    return f'<div class="prompt">{"".join(tokens).strip()} {blank}</div>'


def _mark(role: Role, looks: Mapping[str, str]) -> Mark | None:
    colour = looks.get(role.group or "")
    return Mark(colour, role.words) if colour else None


def _token(word: str, role: Role, mark: Mark | None) -> str:
    space = "" if word in _NO_SPACE_BEFORE else " "
    if mark:
        style = f'class="marked" style="--mark: {mark.colour}"'
        return (
            f'{space}<span {style} title="{escape(mark.words, quote=True)}">{escape(word)}</span>'
        )
    kind = "plain" if role is _FILLER else "other"
    title = escape(role.words, quote=True)
    return f'{space}<span class="{kind}" title="{title}">{escape(word)}</span>'


def attention_html(
    words: Sequence[str],
    roles: Sequence[str | None],
    weights: Sequence[float],
    chosen: int,
    task: Task,
) -> str:
    """The tokens of a prompt [seq], coloured by one token's attention to them [seq].

    The chosen token has a frame; every token tells its weight and its role on hover.
    """
    known = {role.name: role.words for role in task.roles}

    def token(place: int, word: str) -> str:
        weight, role = weights[place], known.get(roles[place] or "", _FILLER.words)
        space = "" if word in _NO_SPACE_BEFORE else " "
        kind = "looking" if place == chosen else "looked-at"
        # A root, so that small weights can be told from none.
        style = f"--share: {100 * max(weight, 0.0) ** 0.5:.0f}%"
        return (
            f'{space}<span class="{kind}" style="{style}" '
            f'title="{weight:.3f}: {escape(role, quote=True)}">{escape(word)}</span>'
        )

    tokens = "".join(token(place, word) for place, word in enumerate(words))
    return f'<div class="prompt attention">{tokens.strip()}</div>'
