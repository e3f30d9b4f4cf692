"""File names: what is in the file, in letters that every computer takes."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from takehome.names import file_name

PROMPTS = Prompts(ENTITY_TRACKING, 200, 3, (5,))


def test_it_says_what_it_is() -> None:
    assert (
        file_name(("circuit", "base"), ("owner/My model",), PROMPTS, "svg")
        == "circuit_base_My-model_entity-tracking_boxes5_n200_seed3.svg"
    )
    of_set = replace(PROMPTS, task=replace(ENTITY_TRACKING, name="entity-tracking/my set"))
    assert file_name((), ("base",), of_set, "md").startswith("base_entity-tracking-my-set_")
    assert file_name(("paper", "scores A"), (), None, "csv") == "paper_scores-A.csv"


@given(st.text(max_size=200), st.lists(st.text(max_size=200), max_size=6))
def test_nothing_but_plain_characters_is_in_it(what: str, models: list[str]) -> None:
    name = file_name((what, "x"), models, PROMPTS, "png")
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.png", name)
    assert ".." not in name
    assert len(name) < 255
