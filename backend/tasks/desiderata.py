"""What a group may encode, as a test: a change of prompt, and the answer if that went along.

A *base* prompt is run; heads take the value that they have on an *alternate* prompt, each prompt at
its own token; *expected* is the answer if these heads carry the variable and nothing else
(Prakash et al., circuit functionality).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.tasks.prompts import Ints, PromptSet


@dataclass(frozen=True, eq=False)
class Pairs:
    """Base and alternate prompts in pairs, and what is expected if the variable is carried.

    Both sets have n prompts, each of one length, which may differ between the sets; expected_ids
    [n], never the base's own answer; marked: roles whose tokens the variable is about, for readers.
    """

    base: PromptSet
    alternate: PromptSet
    expected_ids: Ints
    marked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Desideratum:
    """One test of one variable.

    label: what it is called on screen; variable: what the heads would carry, “object”, “label”,
    “position”; text: how the alternate prompt differs and what is expected, in a sentence; groups:
    keys of those that it is about, all of them if there are none; control: whether it should *not*
    come true; draw(tokenizer, base, seed): the pairs of these base prompts, raises UserError if the
    tokenizer cannot write the alternate prompts as they have to be.
    """

    name: str
    label: str
    variable: str
    text: str
    draw: Callable[[Any, PromptSet, int], Pairs]
    groups: tuple[str, ...] = ()
    control: bool = False
