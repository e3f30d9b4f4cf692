"""Files of own tasks for tests: a small one, and indirect object identification written as one."""

from __future__ import annotations

import json
from typing import Any

from backend.tasks.ioi_words import NAMES, OBJECTS, PLACES, TEMPLATES

FRUIT = """
name = "fruit"
title = "Fruit"
text = "Who eats a fruit is told, and asked."
templates = ["{one} eats the {fruit} and {two} sleeps . Fruit : {again}"]
answer = { slot = "again", words = "the fruit" }
competitors = { slots = ["other"], words = "another fruit", all = "other fruit" }
counterfactual = ["fruit"]

[words]
fruit = ["apple", "pear", "plum", "fig"]
name = ["Ann", "Bo", "Cy"]

[slots]
one = { from = "name" }
two = { from = "name" }
fruit = { from = "fruit" }
again = { of = "fruit" }
other = { from = "fruit" }

[[tokens]]
name = "fruit"
at = "fruit"
words = "fruit"

[[tokens]]
name = "end"
at = "end"
words = "last token"

[[groups]]
key = "MV"
name = "Mover"
at = "end"
into = "logits"
text = "Copies the fruit."

[[groups]]
key = "FR"
name = "Fruit"
at = "fruit"
into = { v = ["MV"] }
text = "Gathers what the fruit is."
"""


def toml(value: Any) -> str:
    """A value as TOML has it on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(of)}" for key, of in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def file_of(data: dict[str, Any]) -> bytes:
    """A file that says this."""
    return "\n".join(f"{key} = {toml(value)}" for key, value in data.items()).encode()


def _sentences() -> list[str]:
    """Those of the built-in task, with the names in both orders and the answer at the end."""
    return [
        template.replace("{first}", first).replace("{second}", second).replace("{third}", "{s2}")
        + " {name}"
        for template in TEMPLATES
        for first, second in (("{io}", "{s1}"), ("{s1}", "{io}"))
    ]


IOI_FILE = file_of(
    {
        "name": "own-ioi",
        "title": "Indirect objects, written as a file",
        "text": "As the built-in task.",
        "templates": _sentences(),
        "answer": {"slot": "name", "words": "the indirect object"},
        "competitors": {"slots": ["subject"], "words": "the subject"},
        "counterfactual": ["io", "s1", "s2"],
        "reference": ["s2"],
        "words": {"names": NAMES, "places": PLACES, "objects": OBJECTS},
        "slots": {
            "io": {"from": "names"},
            "s1": {"from": "names"},
            "s2": {"of": "s1"},
            "place": {"from": "places"},
            "object": {"from": "objects"},
            "name": {"of": "io"},
            "subject": {"of": "s2"},
        },
        "tokens": [
            {"name": "io", "at": "io", "words": "IO"},
            {"name": "s1", "at": "s1", "words": "S1"},
            {"name": "s1_plus_1", "at": "s1", "after": 1, "words": "S1 + 1"},
            {"name": "s2", "at": "s2", "words": "S2"},
            {"name": "end", "at": "end", "words": "last token"},
        ],
        "groups": [
            {"key": "NM", "name": "Name Mover", "at": "end", "into": "logits", "text": "Moves."},
            {"key": "SI", "name": "Inhibition", "at": "end", "into": {"q": ["NM"]}, "text": "No."},
            {"key": "IN", "name": "Induction", "at": "s2", "into": {"v": ["SI"]}, "text": "Twice."},
            {
                "key": "PT",
                "name": "Previous Token",
                "at": "s1_plus_1",
                "into": {"k": ["IN"]},
                "text": "Before.",
            },
        ],
    }
)
