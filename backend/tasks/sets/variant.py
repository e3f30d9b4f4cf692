"""A task on prompts of one's own: the same groups and positions, and rows instead of draws."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np

from backend.core.errors import UserError
from backend.core.serialize import to_json
from backend.tasks.attention_edges import RANDOM
from backend.tasks.prompts import PromptSet, check_size, generators
from backend.tasks.sets.encoding import Fitting, fitting
from backend.tasks.sets.files import Kept
from backend.tasks.sets.rows import Misfit, Row, needed_tokens
from backend.tasks.task import Task

_SHOWN = 5
"""Rows that the note names."""
_FEW = 50
"""Fewer reference prompts than this are told."""


def task_on(task: Task, name: str, kept: Kept) -> Task:
    """The task on the rows of a set; its tests of what groups encode are left out.

    The seed is of the order in which rows are taken; there are no more prompts than rows. Raises
    UserError when rows lack tokens that the task has by now.
    """
    rows = kept.rows
    if missing := [each for each in needed_tokens(task) if any(each not in r.spans for r in rows)]:
        raise UserError(
            f"The prompts “{name}” do not say where “{missing[0]}” is, which {task.title} has now. "
            "Add them again."
        )

    @lru_cache(maxsize=4)
    def read(tokenizer: Any) -> tuple[list[Fitting], list[Misfit]]:
        good, misfits = fitting(task, rows, tokenizer)
        return good, sorted((*kept.misfits, *misfits), key=lambda misfit: misfit.number)

    def fits(tokenizer: Any) -> list[Fitting]:
        good, misfits = read(tokenizer)
        if not good:
            reasons = "; ".join(f"row {each.number}: {each.reason}" for each in misfits[:_SHOWN])
            raise UserError(
                f"No row of “{name}” can be used with this model. {reasons}. Choose another model, "
                "or mend the rows."
            )
        return good

    def ordered(tokenizer: Any, n: int, seed: int, purpose: str) -> list[Fitting]:
        check_size(n, seed)
        good = fits(tokenizer)
        (rng,) = generators(seed, purpose, 1)
        return [good[place] for place in rng.permutation(len(good))[:n]]

    def sample(tokenizer: Any, n: int, seed: int = 0) -> PromptSet:
        return _prompts(variant, ordered(tokenizer, n, seed, "prompts"), seed)

    def reference(tokenizer: Any, n: int, seed: int = 0) -> PromptSet:
        chosen = ordered(tokenizer, n, seed, "reference")
        return _changed(variant, chosen, seed) if has_own else _prompts(variant, chosen, seed)

    def counterfactual(tokenizer: Any, prompts: PromptSet, seed: int | None = None) -> PromptSet:
        seed = prompts.seed if seed is None else seed
        by_number = {each.row.number: each for each in fits(tokenizer)}
        chosen = [by_number[number] for number in prompts.drawn["row"].tolist()]
        if has_own:
            return _changed(variant, chosen, seed)
        others = _others(name, chosen, [*by_number.values()], seed)
        return replace(
            _prompts(variant, others, seed),
            drawn=prompts.drawn,
        )

    def note(tokenizer: Any) -> str:
        good, misfits = read(tokenizer)
        where = "the counterfactuals of its rows" if has_own else "its rows themselves"
        few = f", and {len(good)} are few" if len(good) < _FEW else ""
        said = f"“{name}” has {len(good)} prompts for it; means are over {where}{few}."
        n = len(good) + len(misfits)
        return f"{said} {told(misfits, n)}" if misfits else said

    has_own = all(row.counterfactual is not None for row in rows)
    there = {*task.position_names, *rows[0].spans}
    there -= {each for row in rows for each in rows[0].spans if each not in row.spans}
    variant = replace(
        task,
        name=f"{task.name}/{name}",
        title=f"{name}: {task.title}",
        roles=tuple(role for role in task.roles if role.name in there),
        options=(),
        sample=sample,
        counterfactual=counterfactual,
        reference=reference,
        length=lambda: max(len(row.text.split()) for row in rows) + 2,
        note=note,
        desiderata=(),
        edges=tuple(
            edge for edge in task.edges if edge.query in there and edge.key in {*there, RANDOM}
        ),
        content=content_of(task, rows),
        most=len(rows),
    )
    return variant


def told(misfits: Sequence[Misfit], n: int) -> str:
    """The first rows that are left out, and why, in a sentence."""
    each = "; ".join(f"row {misfit.number}: {misfit.reason}" for misfit in misfits[:_SHOWN])
    more = f"; and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
    return f"{len(misfits)} of {n} rows are left out ({each}{more})."


def content_of(task: Task, rows: Sequence[Row]) -> str:
    """A fingerprint of the rows, and of the file of their task, if it has one."""
    decides = json.dumps([task.content, to_json(list(rows))], sort_keys=True)
    return sha256(decides.encode()).hexdigest()[:16]


def _prompts(task: Task, chosen: Sequence[Fitting], seed: int) -> PromptSet:
    choice_ids = np.array([each.choices for each in chosen], dtype=np.int64)
    names = {*chosen[0].tokens}.intersection(*(each.tokens for each in chosen))
    tokens = {
        name: np.array([each.tokens[name] for each in chosen], dtype=np.int64) for name in names
    }
    return PromptSet(
        task,
        tuple(each.row.text for each in chosen),
        np.array([each.ids for each in chosen], dtype=np.int64),
        answer_ids=choice_ids[:, 0].copy(),
        choice_ids=choice_ids,
        positions=tokens,
        roles={name: at[:, None] for name, at in tokens.items()},
        spans=np.array([each.spans for each in chosen], dtype=np.int64),
        drawn={"row": np.array([each.row.number for each in chosen])},
        seed=seed,
    )


def _changed(task: Task, chosen: Sequence[Fitting], seed: int) -> PromptSet:
    """The counterfactuals of these rows; their tokens are where those of the rows are."""
    others = [each.other for each in chosen if each.other]
    return replace(
        _prompts(task, chosen, seed),
        texts=tuple(each.row.counterfactual or "" for each in chosen),
        input_ids=np.array([ids for ids, _ in others], dtype=np.int64),
        spans=np.array([spans for _, spans in others], dtype=np.int64),
    )


def _others(
    name: str, chosen: Sequence[Fitting], every: Sequence[Fitting], seed: int
) -> list[Fitting]:
    """For each row another one with its named tokens at the same places and another answer."""
    (rng,) = generators(seed, "counterfactual", 1)
    order = [every[place] for place in rng.permutation(len(every))]
    found = []
    for start, each in enumerate(chosen):
        turned = [*order[start % len(order) :], *order[: start % len(order)]]
        other = next(
            (
                other
                for other in turned
                if other.tokens == each.tokens and other.choices[0] != each.choices[0]
            ),
            None,
        )
        if not other:
            raise UserError(
                f"Row {each.row.number} of “{name}” has no counterfactual, and no other row has "
                "another answer and its tokens at the same places. Write a counterfactual for each."
            )
        found.append(other)
    return found
