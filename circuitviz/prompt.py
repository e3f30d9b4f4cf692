"""A prompt as text in which every token is marked by its role."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from backend.tasks.task import Role, Task
from circuitviz.palette import colours

_NO_SPACE_BEFORE = frozenset(".,")


_FILLER = Role("filler", "filler")


def prompt_html(words: Sequence[str], roles: Sequence[str | None], task: Task, answer: str) -> str:
    """The tokens of a prompt [seq] with their roles [seq] as HTML, the model's answer at its end.

    The tokens at which a group works carry its colour; every token tells its role on hover. The
    classes are styled by the page.
    """
    known, looks = {role.name: role for role in task.roles}, colours(task)
    named = [known.get(role or "", _FILLER) for role in roles]
    tokens = [
        _token(word, role, looks.get(role.group or ""))
        for word, role in zip(words, named, strict=True)
        if word
    ]
    blank = f'<span class="marked" style="--mark: currentColor">{escape(answer)}</span>'
    return f'<div class="prompt">{"".join(tokens).strip()} {blank}</div>'


def _token(word: str, role: Role, colour: str | None) -> str:
    space = "" if word in _NO_SPACE_BEFORE else " "
    title = escape(role.words, quote=True)
    if colour:
        style = f'class="marked" style="--mark: {colour}"'
        return f'{space}<span {style} title="{title}">{escape(word)}</span>'
    kind = "plain" if role is _FILLER else "other"
    return f'{space}<span class="{kind}" title="{title}">{escape(word)}</span>'
