"""Reading the file of an own task: every field is checked, and named where it is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from backend.core.errors import UserError
from backend.core.names import plain_name
from backend.tasks.own.fields import LONGEST_TEXT, Field, Table
from backend.tasks.own.form import Form, Slot, between, needed_words, slots_in, without_slots
from backend.tasks.own.group_reading import edges_of, groups_of, tokens_of
from backend.tasks.own.slot_reading import MOST_SLOTS, lists_of, slots_of
from backend.tasks.task import Words

_MOST_TEMPLATES, _LONGEST_TEMPLATE = 200, 500
_FIELDS = (
    "name",
    "title",
    "text",
    "templates",
    "answer",
    "competitors",
    "counterfactual",
    "words",
    "slots",
    "tokens",
    "groups",
)


def form_of(data: Any) -> Form:
    """What a file says, as TOML has it; raises UserError naming the field that is wrong."""
    table = Field("", data).table(_FIELDS, ("source", "reference", "edges"))
    slots = slots_of(table["slots"], lists_of(table["words"]))
    templates = [_template(field, slots) for field in table["templates"].items(_MOST_TEMPLATES)]
    answer, competitors, words = _answers(table, slots)
    _check_answer(table["templates"], templates, answer)
    anew = {
        key: _anew(table[key], slots) for key in ("counterfactual", "reference") if key in table
    }
    for key, names in anew.items():
        _check_enough(table[key], slots, names if key == "counterfactual" else ())
    tokens = tokens_of(table["tokens"], templates, slots)
    groups = groups_of(table["groups"], tokens, templates)
    return Form(
        _name(table["name"]),
        table["title"].prose(60),
        table["source"].prose() if "source" in table else "a task of one’s own",
        table["text"].prose(LONGEST_TEXT),
        words,
        tuple(templates),
        slots,
        answer,
        competitors,
        anew["counterfactual"],
        anew.get("reference", ()),
        tokens,
        groups,
        edges_of(table, tokens, groups),
    )


def _name(field: Field) -> str:
    text = field.text()
    try:
        return plain_name(text)
    except UserError as error:
        raise field.wrong(
            "is no plain name", "Use up to 64 letters, digits, “-” and “_”"
        ) from error


def _template(field: Field, slots: Mapping[str, Slot]) -> str:
    text = field.text(_LONGEST_TEMPLATE)
    for name in slots_in(text):
        Field(field.path, name).one_of(slots, "slot")
    if "{" in without_slots(text) or "}" in without_slots(text):
        raise field.wrong("has a brace without its partner", "Write slots as {name}")
    if text != " ".join(text.split()):
        raise field.wrong("has two spaces in a row, or one at an end", "Write one, and none there")
    return text


def _answers(table: Table, slots: Mapping[str, Slot]) -> tuple[str, tuple[str, ...], Words]:
    right = table["answer"].table(("slot", "words"))
    others = table["competitors"].table(("slots", "words"), ("all",))
    answer = right["slot"].one_of(slots, "slot")
    competitors = tuple(
        item.one_of([name for name in slots if name != answer], "slot that is not the answer")
        for item in others["slots"].items(MOST_SLOTS)
    )
    if len({*competitors}) < len(competitors):
        raise others["slots"].wrong("names a slot twice", "Leave one")
    one = others["words"].prose()
    all_of_them = others["all"].prose() if "all" in others else one
    return answer, competitors, Words(right["words"].prose(), one, all_of_them)


def _check_answer(field: Field, templates: Sequence[str], answer: str) -> None:
    for place, template in enumerate(templates, 1):
        slots, rest = slots_in(template), between(template)
        at = Field(f"{field.path}[{place}]", template)
        if not slots or slots[-1] != answer or rest[-1] or answer in slots[:-1]:
            raise at.wrong(
                f"does not end in the answer {{{answer}}}, or has it elsewhere",
                f"Write {{{answer}}} once, as the last of the sentence",
            )
        if not rest[0] and len(slots) == 1:
            raise at.wrong("has nothing before the answer", "Write a sentence")


def _anew(field: Field, slots: Mapping[str, Slot]) -> tuple[str, ...]:
    drawn = [name for name, slot in slots.items() if slot.by is None]
    least = 0 if field.path == "reference" else 1
    return tuple(
        dict.fromkeys(item.one_of(drawn, "slot that can be drawn") for item in
                      field.items(MOST_SLOTS, least))
    )  # fmt: skip


def _check_enough(field: Field, slots: Mapping[str, Slot], anew: Collection[str]) -> None:
    """A prompt's words are distinct, and those of its counterfactual are none of its own."""
    needed = needed_words(slots, anew)
    for slot in slots.values():
        if slot.like and len(slot.pool) < needed[slot.like]:
            raise Field(f"words.{slot.like}", None).wrong(
                f"has {len(slot.pool)} words, and a prompt with its counterfactual has "
                f"{needed[slot.like]} different ones",
                f"Add words, or name fewer slots in “{field.path}”",
            )
