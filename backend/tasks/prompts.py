"""Prompts of any task: which are asked for, and the set of them as one value (no torch)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.core.errors import UserError
from backend.tasks.task import Task

MAX_PROMPTS, MAX_SEED = 100_000, 2**31 - 1
N_PROMPTS = 200
"""Prompts that models are asked unless told otherwise, by pages, commands and from Python."""
N_PATCHED = 100
"""The same of path patching, and of questions to the heads of a circuit."""
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Prompts:
    """Which prompts every model is asked; raises UserError for those that there cannot be.

    n: as many as there are, of a task that has fewer; options: one number for each of the task's
    options, their defaults if there are none.
    """

    task: Task
    n: int
    seed: int
    options: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.options:
            object.__setattr__(self, "options", tuple(each.default for each in self.task.options))
        check_size(self.n, self.seed)
        if self.task.most is not None:
            object.__setattr__(self, "n", min(self.n, self.task.most))
        if len(self.options) != len(self.task.options):
            raise UserError(
                f"{self.task.title} has {len(self.task.options)} options, and {len(self.options)} "
                "were given. Give one number for each."
            )
        for option, value in zip(self.task.options, self.options, strict=True):
            if not option.least <= value <= option.most:
                raise UserError(
                    f"{option.words}: {option.least} to {option.most}, not {value}. Choose a "
                    "number in that range."
                )

    def __str__(self) -> str:
        chosen = (
            f", {value} {option.name}"
            for option, value in zip(self.task.options, self.options, strict=True)
        )
        return f"{self.n} prompts, seed {self.seed}{''.join(chosen)}"

    def sample(self, tokenizer: Any, n: int | None = None) -> PromptSet:
        """These prompts, or another number of them."""
        drawn = self.task.sample(tokenizer, self.n if n is None else n, self.seed, *self.options)
        return replace(drawn, options=self.options)

    def reference(self, tokenizer: Any, n: int) -> PromptSet:
        """`n` prompts over which head outputs are averaged, independent of those asked."""
        return self.task.reference(tokenizer, n, self.seed, *self.options)


@dataclass(frozen=True, eq=False)
class PromptSet:
    """Prompts of one length as one immutable value; every array is read-only.

    input_ids [n, seq]; answer_ids [n]; choice_ids [n, k], the right answers and those that they
    compete with; positions: a token of each prompt [n], by name, the task's and others; roles:
    tokens [n, m] of each role, by its name; spans [n, seq, 2], each token's characters in its
    text; drawn: what the task drew for each prompt [n, ...], by its own names.
    """

    task: Task
    texts: tuple[str, ...]
    input_ids: Ints
    answer_ids: Ints
    choice_ids: Ints
    positions: Mapping[str, Ints]
    roles: Mapping[str, Ints]
    spans: Ints
    drawn: Mapping[str, NDArray[Any]]
    seed: int
    options: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        tables = [self.positions, self.roles, self.drawn]
        arrays = [self.input_ids, self.answer_ids, self.choice_ids, self.spans]
        for array in (*arrays, *(each for table in tables for each in table.values())):
            array.setflags(write=False)
        for name in ("positions", "roles", "drawn"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def n_choices(self) -> int:
        """Answers that compete in each prompt, the right one among them."""
        return self.choice_ids.shape[1]

    @property
    def digest(self) -> str:
        """Of all that a model is asked, and of which answers are right."""
        ids = self.input_ids, self.answer_ids, self.choice_ids
        return sha256(b"".join(each.tobytes() for each in ids)).hexdigest()

    def words(self, prompt: int) -> list[str]:
        """The tokens of one prompt as text, special tokens as empty strings: [seq]."""
        text = self.texts[prompt]
        return [text[start:end].strip() for start, end in self.spans[prompt]]

    def roles_of(self, prompt: int) -> list[str | None]:
        """The name of every token's most specific role in one prompt, if it has any: [seq]."""
        found: list[str | None] = [None] * self.input_ids.shape[1]
        for role in self.task.roles:
            for token in self.roles[role.name][prompt]:
                found[token] = role.name
        return found


def select(prompts: PromptSet, keep: NDArray[np.bool_]) -> PromptSet:
    """The prompts for which `keep` [n] is true."""
    rows = np.flatnonzero(keep)

    def of_rows(table: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: array[rows] for name, array in table.items()}

    return PromptSet(
        prompts.task,
        tuple(prompts.texts[row] for row in rows),
        prompts.input_ids[rows],
        prompts.answer_ids[rows],
        prompts.choice_ids[rows],
        of_rows(prompts.positions),
        of_rows(prompts.roles),
        prompts.spans[rows],
        of_rows(prompts.drawn),
        prompts.seed,
        prompts.options,
    )


def check_size(n: int, seed: int) -> None:
    """Raise UserError if so many prompts of this seed cannot be drawn."""
    if n < 1:
        raise UserError(f"At least one prompt is needed, not {n}. Ask for more prompts.")
    if n > MAX_PROMPTS:
        raise UserError(f"At most {MAX_PROMPTS} prompts can be drawn, not {n}. Ask for fewer.")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"A seed is a number from 0 to {MAX_SEED}, not {seed}. Choose another.")


def generators(seed: int, purpose: str, n: int) -> list[np.random.Generator]:
    """`n` independent streams of random numbers, never shared between purposes."""
    purpose_key = int.from_bytes(purpose.encode())
    return [np.random.default_rng([seed, purpose_key, stream]) for stream in range(n)]


def distinct_words(
    rng: np.random.Generator,
    words: Collection[str],
    n: int,
    k: int,
    excluded: NDArray[np.str_] | None = None,
) -> NDArray[np.str_]:
    """`n` rows of `k` distinct words, none of them among the row's `excluded` ones: [n, k].

    There must be as many words as a row and what it excludes have.
    """
    pool = np.array(list(words))
    order = rng.random((n, len(pool)))
    if excluded is not None:
        order[(pool[None, :, None] == excluded[:, None, :]).any(-1)] = 2.0
    drawn: NDArray[np.str_] = pool[order.argsort(axis=1)[:, :k]]
    return drawn
