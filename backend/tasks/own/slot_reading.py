"""Reading the word lists and the slots of an own task's file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from backend.tasks.attention_edges import RANDOM
from backend.tasks.own.fields import Field, Table
from backend.tasks.own.filling import TEMPLATE
from backend.tasks.own.form import END, Relation, Slot

MOST_SLOTS = 20
_MOST_WORDS, _LONGEST_WORD, _LARGEST = 5000, 60, 9999
List = tuple[str, ...] | dict[str, str]
"""Words, or a table from word to word."""


def lists_of(field: Field) -> dict[str, List]:
    """Lists of words, and tables from word to word, by name; raises UserError naming a field."""
    return {
        Field(each.path, each.path.partition(".")[2]).name(): _list(each)
        for each in field.entries(MOST_SLOTS)
    }


def _list(field: Field) -> List:
    if isinstance(field.value, dict):
        entries = field.entries(_MOST_WORDS)
        for key, entry in zip(field.value, entries, strict=True):
            _word(Field(entry.path, key))
        return {key: _word(entry) for key, entry in zip(field.value, entries, strict=True)}
    words = [_word(item) for item in field.items(_MOST_WORDS, least=2)]
    if doubled := [word for word, count in Counter(words).items() if count > 1]:
        raise field.wrong(f"has “{doubled[0]}” more than once", "Leave one")
    return tuple(words)


def _word(field: Field) -> str:
    word = field.text(_LONGEST_WORD)
    if word != word.strip() or "{" in word or "}" in word:
        raise field.wrong(f"holds “{word}”", "Write a word without spaces around it or braces")
    return word


def slots_of(field: Field, lists: Mapping[str, List]) -> dict[str, Slot]:
    """The slots by name, each after the one that it follows; raises UserError naming a field."""
    tables, slots = field.entries(MOST_SLOTS), dict[str, Slot]()
    for each in tables:
        name = Field(each.path, each.path.partition(".")[2]).name()
        if name in (END, RANDOM, TEMPLATE):
            raise each.wrong("has a name that means something else", "Choose another name")
        slots[name] = _slot(name, each, lists, slots)
    return slots


def _slot(name: str, field: Field, lists: Mapping[str, List], before: Mapping[str, Slot]) -> Slot:
    """A slot, which may follow one of those before it."""
    kinds = [kind for kind in ("from", "number", "of") if kind in _keys(field)]
    if len(kinds) != 1:
        raise field.wrong(
            f"says {' and '.join(kinds) or 'not'} where its word is from",
            "Write one of: from = a list of words; number = [least, most]; of = a slot before it",
        )
    if kinds == ["from"]:
        table = field.table(("from",), ("several_tokens",))
        like = table["from"].one_of(lists, "list in “words”")
        return Slot(name, tuple(lists[like]), like, several_tokens=_several(table))
    if kinds == ["number"]:
        return _number_slot(name, field, before)
    table = field.table(("of",), ("by", "several_tokens"))
    of = before[table["of"].one_of(before, "slot before it")]
    if "by" not in table:
        return Slot(name, of.pool, of.like, of.name, None, (), _several(table) or of.several_tokens)
    maps = {key: each for key, each in lists.items() if isinstance(each, dict)}
    by = maps[table["by"].one_of(maps, "table in “words”")]
    if missing := [word for word in of.pool if word not in by]:
        raise table["by"].wrong(f"has no word for “{missing[0]}”", "Add it to that table")
    return Slot(
        name, tuple(dict.fromkeys(by[word] for word in of.pool)), "", of.name, by, (),
        _several(table),
    )  # fmt: skip


def _keys(field: Field) -> Collection[str]:
    return field.value if isinstance(field.value, dict) else ()


def _several(table: Table) -> bool:
    return "several_tokens" in table and table["several_tokens"].flag()


def _number_slot(name: str, field: Field, before: Mapping[str, Slot]) -> Slot:
    table = field.table(("number",), ("digits", "above", "below", "by", "several_tokens"))
    ends = table["number"].items(2, 2)
    least = ends[0].number(0, _LARGEST)
    most = ends[1].number(least + 1, min(least + _MOST_WORDS - 1, _LARGEST))
    digits = table["digits"].number(1, 4) if "digits" in table else 1
    numbers = [one for one, slot in before.items() if all(w.isdigit() for w in slot.pool)]
    by = _difference(table["by"]) if "by" in table else (1, _LARGEST)
    relations = tuple(
        Relation(sign, table[key].one_of(numbers, "number slot before it"), *by)
        for key, sign in (("above", 1), ("below", -1))
        if key in table
    )
    if "by" in table and not relations:
        raise table["by"].wrong("says by how much, but not above or below which slot", "Say which")
    words = tuple(str(number).zfill(digits) for number in range(least, most + 1))
    return Slot(name, words, relations=relations, several_tokens=_several(table))


def _difference(field: Field) -> tuple[int, int]:
    if isinstance(field.value, list):
        ends = field.items(2, 2)
        least = ends[0].number(0, _LARGEST)
        return least, ends[1].number(least, _LARGEST)
    return field.number(0, _LARGEST), _LARGEST
