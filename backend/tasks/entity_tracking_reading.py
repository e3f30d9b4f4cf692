"""Prompts of entity tracking that a user writes: which box is asked for, and what is in it."""

from __future__ import annotations

import re

from backend.tasks.written import Written

_BOX = r"[Tt]he (\w+) is in Box (\w+)"
_FORM = re.compile(rf"{_BOX}(, {_BOX})*\. Box (\w+) contains the")


def read(text: str) -> Written | None:
    """The prompt with its words named; None unless it has the task's form and names the box asked
    for once."""
    whole = _FORM.fullmatch(text)
    boxes = [*re.finditer(_BOX, text)]
    asked = [box for box in boxes if whole and box[2] == whole[6]]
    if not whole or len(asked) != 1:
        return None
    (right,) = asked
    others = dict.fromkeys(box[1] for box in boxes if box[1] != right[1])
    return Written(
        text,
        right[1],
        tuple(others),
        (
            *(("object", box.end(1) - 1) for box in boxes),
            *(("label", box.end(2) - 1) for box in boxes),
            ("correct_object", right.end(1) - 1),
            ("prev_query_label", right.end(2) - 1),
            ("query_label", whole.end(6) - 1),
            ("last", len(text) - 1),
        ),
    )
