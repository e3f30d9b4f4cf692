"""The form that the paper's authors keep prompts in: a sentence about boxes, with its answer."""

from __future__ import annotations

import re
from typing import Any

_BOX = re.compile(r"the (\w+) is in box (\w+)", re.IGNORECASE)
_ASKED = re.compile(r"box (\w+) contains the$", re.IGNORECASE)


def box_fields(text: str, answer: str) -> dict[str, Any]:
    """What a row says with a sentence alone: marked tokens, and the other objects as competitors.

    Nothing for a sentence that is not of this form.
    """
    boxes, asked = [*_BOX.finditer(text)], _ASKED.search(text)
    own = next((box for box in boxes if asked and box[2] == asked[1]), None)
    if not asked or not own:
        return {}
    marks = {
        own.start(1): ("correct_object", own[1]),
        own.start(2): ("prev_query_label", own[2]),
        asked.start(1): ("query_label", asked[1]),
    }
    clean, start = "", 0
    for place, (name, word) in sorted(marks.items()):
        clean += f"{text[start:place]}[{word}|{name}]"
        start = place + len(word)
    return {
        "clean": clean + text[start:],
        "competitors": [box[1] for box in boxes if box[1] != answer],
    }
