"""The planted model identifies indirect objects by the mechanism that its text tells."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

from backend.tasks.ioi_words import TEMPLATES
from tests import planted_ioi
from tests.planted_ioi import CIRCUIT, NEGATIVE, PEOPLE

FIRST, SECOND, THIRD, END = 1, 3, 9, 13
TOKENIZER = planted_ioi.tokenizer()


def ids(sentence: str, *names: str) -> Any:
    """The sentence with these names, as tokens [1, 14]."""
    first, second, third = names
    text = sentence.format(first=first, second=second, third=third, place="bank", object="book")
    return torch.tensor([TOKENIZER(text)["input_ids"]])


def test_it_answers_with_the_other_name_in_every_sentence_and_order() -> None:
    model = planted_ioi.model()
    for sentence, (io, s) in product(TEMPLATES, [(PEOPLE[0], PEOPLE[5]), (PEOPLE[11], PEOPLE[1])]):
        for names in ((io, s, s), (s, io, s)):
            with torch.no_grad():
                answer = int(model(ids(sentence, *names)).logits[0, -1].argmax())
            assert TOKENIZER.convert_ids_to_tokens(answer) == io


def test_its_heads_attend_as_they_are_said_to() -> None:
    model = planted_ioi.model()
    model.set_attn_implementation("eager")
    duplicate, induction = CIRCUIT["IN"]
    for io, s, names in ((FIRST, SECOND, "ABB"), (SECOND, FIRST, "BAB")):
        people = [dict(zip("AB", PEOPLE, strict=False))[name] for name in names]
        with torch.no_grad():
            looks = model(ids(TEMPLATES[0], *people), output_attentions=True).attentions
        told = {
            (CIRCUIT["PT"][0], s + 1): s,
            (duplicate, THIRD): s,
            (induction, THIRD): s + 1,
            (CIRCUIT["SI"][0], END): THIRD,
            **{(head, END): io for head in (*CIRCUIT["NM"], NEGATIVE)},
        }
        for (head, from_token), to_token in told.items():
            assert looks[head.layer][0, head.index, from_token, to_token] > 0.9


def test_without_a_repeated_name_it_rules_out_none() -> None:
    model = planted_ioi.model()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        looks = model(ids(TEMPLATES[0], *PEOPLE[:3]), output_attentions=True).attentions
    for head in CIRCUIT["NM"]:
        assert looks[head.layer][0, head.index, END, [FIRST, SECOND, THIRD]].min() > 0.15
