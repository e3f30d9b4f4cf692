"""Where the two tokens of an attention edge are in each prompt (no torch)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from backend.core.errors import UserError
from backend.tasks.attention_edges import RANDOM, AttentionEdge
from backend.tasks.prompts import Ints, PromptSet, generators


def with_random_tokens(prompts: PromptSet, edges: Iterable[AttentionEdge]) -> PromptSet:
    """The prompts with a position for each random key of these edges.

    It is drawn evenly from the tokens before the query that have no name, by the prompts' seed; the
    first prompts of a seed have the same for every n. Raises UserError where there is none.
    """
    queries = {edge.query for edge in edges if edge.key == RANDOM}
    drawn = {_random_key(query): _random_tokens(prompts, query) for query in sorted(queries)}
    return replace(prompts, positions={**prompts.positions, **drawn})


def tokens_of(prompts: PromptSet, edge: AttentionEdge) -> tuple[Ints, Ints]:
    """The query and the key token of each prompt, [n] each; random ones as `with_random_tokens`."""
    key = _random_key(edge.query) if edge.key == RANDOM else edge.key
    return prompts.positions[edge.query], prompts.positions[key]


def check_backward(prompts: PromptSet, edge: AttentionEdge) -> None:
    """Raise UserError for an edge whose key comes after its query in every prompt."""
    query, key = tokens_of(prompts, edge)
    if (key > query).all():
        words = prompts.task.token_words
        raise UserError(
            f"There is nothing to cut: “{words(edge.key)}” comes after “{words(edge.query)}” in "
            "every prompt, and no token attends to later ones. Swap the two."
        )


def _random_key(query: str) -> str:
    return f"{RANDOM} before {query}"


def _random_tokens(prompts: PromptSet, query: str) -> Ints:
    (chance,) = generators(prompts.seed, f"random token before {query}", 1)
    order = chance.random(prompts.input_ids.shape)
    tokens = np.arange(order.shape[1])
    order[tokens >= prompts.positions[query][:, None]] = 2
    for named in prompts.positions.values():
        np.put_along_axis(order, named[:, None], 2, axis=1)
    if (order.min(1) == 2).any():
        raise UserError(
            f"No token without a name comes before “{prompts.task.token_words(query)}” in some "
            "prompts. Choose another pair of tokens."
        )
    found: Ints = order.argmin(1)
    return found
