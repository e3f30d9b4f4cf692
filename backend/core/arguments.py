"""Types of arguments of a command line, with messages that say what would do."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TypeVar

from backend.core.errors import UserError
from backend.core.files import shown

Value = TypeVar("Value")

_WHOLE = re.compile(r"[+-]?\d{1,20}", re.ASCII)


def whole(least: int, most: int) -> Callable[[str], int]:
    """An argument's type: a whole number in this range."""

    def checked(text: str) -> int:
        number = int(text) if _WHOLE.fullmatch(text) else None
        if number is None or not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"“{shown(text)[:40]}” is not a whole number from {least} to {most}: give one"
            )
        return number

    return checked


def number(least: float, most: float) -> Callable[[str], float]:
    """An argument's type: a number in this range."""

    def checked(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = float("nan")
        if not least <= found <= most:
            raise argparse.ArgumentTypeError(
                f"“{shown(text)[:40]}” is not a number from {least:g} to {most:g}: give one"
            )
        return found

    return checked


def checked_by(check: Callable[[str], Value]) -> Callable[[str], Value]:
    """An argument's type: what is made of text that passes a check which raises UserError."""

    def checked(text: str) -> Value:
        try:
            return check(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked
