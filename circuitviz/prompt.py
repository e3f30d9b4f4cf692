"""A prompt as text in which every token is marked by its role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from backend.core.circuit import Group
from backend.tasks.entity_tracking import Role
from circuitviz.palette import COLOURS

_GROUP_AT: Mapping[Role, Group] = {
    Role.correct_object: Group.A,
    Role.prev_query_label: Group.D,
    Role.query_label: Group.C,
    Role.last: Group.B,
}
_NO_SPACE_BEFORE = frozenset(".,")


def prompt_html(words: Sequence[str], roles: Sequence[Role], answer: str) -> str:
    """The tokens of a prompt [seq] as HTML, the model's answer at its end.

    The tokens at which a group works carry its colour; every token tells its role on hover. The
    classes are styled by the page.
    """
    tokens = [_token(word, role) for word, role in zip(words, roles, strict=True) if word]
    blank = f'<span class="marked" style="--mark: currentColor">{escape(answer)}</span>'
    return f'<div class="prompt">{"".join(tokens).strip()} {blank}</div>'


def _token(word: str, role: Role) -> str:
    space = "" if word in _NO_SPACE_BEFORE else " "
    title = escape(role.value, quote=True)
    if role in _GROUP_AT:
        colour = COLOURS[_GROUP_AT[role]]
        style = f'class="marked" style="--mark: {colour}"'
        return f'{space}<span {style} title="{title}">{escape(word)}</span>'
    kind = "plain" if role is Role.filler else "other"
    return f'{space}<span class="{kind}" title="{title}">{escape(word)}</span>'
