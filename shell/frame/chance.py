"""Which models of a result do no better than guessing among the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from backend.methods.rows import choices_of
from backend.models import catalogue
from backend.tasks.chance import against_chance, warning
from shell.frame.words import unmarked


def warn_of_chance(models: Sequence[str], parts: Sequence[Any]) -> None:
    """A warning for each model that is not above chance."""
    for name, choice in choices_of(models, parts).items():
        if text := warning(catalogue.label(name), choice):
            st.warning(unmarked(text))


def show_chance(models: Sequence[str], parts: Sequence[Any]) -> None:
    """Every model beside chance, in a line."""
    found = choices_of(models, parts)
    if found:
        each = (f"{catalogue.label(name)}: {against_chance(found[name])}" for name in found)
        st.caption(unmarked(f"Beside guessing among the answers that compete. {'. '.join(each)}."))
