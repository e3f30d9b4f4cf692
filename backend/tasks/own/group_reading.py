"""Reading the tokens with names and the groups of an own task's file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from typing import get_args

from backend.tasks.attention_edges import RANDOM, AttentionEdge
from backend.tasks.own.fields import LONGEST_TEXT, Field, Table, some
from backend.tasks.own.form import END, Slot, Token, place_in, positions_of, slots_in
from backend.tasks.task import Composition, Group

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
SHAPES = ("circle", "square", "triangle", "diamond", "hexagon")
_MOST_TOKENS, _MOST_GROUPS, _SIZE = 20, 12, 4
_KEY = re.compile(r"[A-Z]{1,3}", re.ASCII)
_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}", re.ASCII)
_RECEIVED = tuple(part for part in get_args(Composition) if part != "logits")


def tokens_of(
    field: Field, templates: Sequence[str], slots: Mapping[str, Slot]
) -> tuple[Token, ...]:
    """The tokens that have names; raises UserError naming the field that is wrong."""
    tokens = [_token(each, templates, slots) for each in field.items(_MOST_TOKENS)]
    for what in ("name", "words"):
        said = Counter(getattr(token, what) for token in tokens)
        for place, token in enumerate(tokens, 1):
            if said[getattr(token, what)] > 1:
                raise Field(f"{field.path}[{place}].{what}", None).wrong(
                    "is that of another token, too", "Choose another"
                )
    return tuple(tokens)


def _token(field: Field, templates: Sequence[str], slots: Mapping[str, Slot]) -> Token:
    table = field.table(
        ("name", "at", "words"), ("occurrence", "after", "first", "where", "column")
    )
    name, words = table["name"].name(), table["words"].prose(60)
    if name == RANDOM:
        raise table["name"].wrong("means any token without a name", "Choose another")
    in_all = [each for each in slots if all(each in slots_in(one)[:-1] for one in templates)]
    at = table["at"].one_of([END, *in_all], "slot of every template")
    occurrence = table["occurrence"].number(1, 9) if "occurrence" in table else 1
    after = table["after"].number(0, 5) if "after" in table else 0
    is_first = "first" in table and table["first"].flag()
    if at == END:
        for extra in table.given("occurrence", "after", "first"):
            raise extra.wrong("says nothing about the last token", "Leave it out")
    if is_first and after:
        raise table["first"].wrong("does not go with “after”", "Leave out one of them")
    for place, template in enumerate(templates, 1):
        if at != END and slots_in(template)[:-1].count(at) < occurrence:
            raise table["occurrence"].wrong(
                f"is {occurrence}, but template {place} has {{{at}}} less often", "Choose less"
            )
    where = table["where"].prose(60) if "where" in table else f"at the {words}"
    column = table["column"].prose(40) if "column" in table else words
    return Token(name, at, occurrence, after, is_first, words, where, column)


def groups_of(field: Field, tokens: Sequence[Token], templates: Sequence[str]) -> tuple[Group, ...]:
    """The groups, each after those that it writes into; raises UserError naming a wrong field."""
    groups: list[Group] = []
    for number, each in enumerate(field.items(_MOST_GROUPS)):
        groups.append(_group(each, number, tokens, groups, templates[0]))
    order = positions_of(templates, tokens, groups)
    for number, template in enumerate(templates, 1):
        if order != sorted(order, key=partial(place_in, template)):
            raise Field(f"templates[{number}]", None).wrong(
                f"has the tokens at which groups work in another order than {templates[0]!r}",
                "Write a sentence in which they follow each other in the same order",
            )
    return tuple(groups)


def _group(
    field: Field, number: int, tokens: Sequence[Token], before: Sequence[Group], template: str
) -> Group:
    """A group, which writes into the logits or into some of those before it."""
    table = field.table(("key", "name", "at", "into", "text"), ("size", "colour", "shape"))
    key = table["key"].text()
    if not _KEY.fullmatch(key) or key in [group.key for group in before]:
        raise table["key"].wrong(
            f"holds {some(key)}", "Write one to three capital letters that no other group has"
        )
    at = table["at"].one_of([token.name for token in tokens], "name of a token")
    component, into = _into(table["into"], at, tokens, before, template)
    colour = table["colour"].text() if "colour" in table else COLOURS[number % len(COLOURS)]
    if not _COLOUR.fullmatch(colour):
        raise table["colour"].wrong(f"holds {some(colour)}", "Write it as #0072B2")
    shape = table["shape"].one_of(SHAPES, "shape") if "shape" in table else ""
    return Group(
        key,
        table["name"].prose(60),
        at,
        component,
        into,
        colour,
        shape or SHAPES[number % len(SHAPES)],
        table["size"].number(1, 1000) if "size" in table else _SIZE,
        table["text"].prose(LONGEST_TEXT),
    )


def _into(
    field: Field, at: str, tokens: Sequence[Token], before: Sequence[Group], template: str
) -> tuple[Composition, tuple[str, ...]]:
    """What of which groups receives what a group writes at this token."""
    places = {token.name: place_in(template, token) for token in tokens}
    if field.value == "logits":
        if places[at] != max(places.values()) or places[at][0] != inf:
            raise field.wrong(
                "is the logits, which are read at the last token",
                f'Let the group work at a token with at = "{END}"',
            )
        return "logits", ()
    if not isinstance(field.value, dict) or len(field.value) != 1:
        raise field.wrong(
            f"holds {some(field.value)}",
            'Write "logits", or { q = ["KEY"] } for queries, k for keys, v for values',
        )
    component: Composition
    (component,) = field.value
    received = field.table((), _RECEIVED)[component]
    known = {group.key: group for group in before}
    keys = [item.one_of(known, "group before this one") for item in received.items(_MOST_GROUPS)]
    for key in keys:
        receiver = places[known[key].position]
        if component == "q" and receiver != places[at]:
            raise received.wrong(
                f"is {key}, which works at another token, and queries are of its own",
                "Choose k or v, or let both work at one token",
            )
        if receiver < places[at]:
            raise received.wrong(
                f"is {key}, which works at an earlier token and cannot look ahead",
                "Choose a group that works at this token or a later one",
            )
    return component, tuple(dict.fromkeys(keys))


def edges_of(
    table: Table, tokens: Sequence[Token], groups: Sequence[Group]
) -> tuple[AttentionEdge, ...]:
    """Attention that is cut unless told otherwise: from where groups work to what they read."""
    names = [token.name for token in tokens]
    if "edges" in table:
        return tuple(
            AttentionEdge(
                pair.items(2, 2)[0].one_of(names, "name of a token"),
                pair.items(2, 2)[1].one_of([*names, RANDOM], "name of a token"),
            )
            for pair in table["edges"].items(_MOST_TOKENS)
        )
    of = {group.key: group.position for group in groups}
    read = [
        AttentionEdge(of[key], group.position)
        for group in groups
        for key in group.into
        if of[key] != group.position
    ]
    return tuple(dict.fromkeys((*read, *(AttentionEdge(edge.query, RANDOM) for edge in read))))
