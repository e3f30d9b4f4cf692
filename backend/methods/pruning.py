"""Heads in an order to grow a circuit of, and pruning one to what it needs (no torch).

Heads with a negative score in any stage of path patching are put in one order. A circuit of them is
pruned by backward elimination, as in ACDC and AutoCircuit, of heads instead of edges: the head
whose loss costs least goes, one after the other. To prune k heads by trying each of those left
every time takes k² / 2 circuits, so the order of a ranking is kept for a while: only the few heads
that cost least then are tried again, and all of them once a quarter is gone (the lazy greedy of
Minoux 1978; here a loss can also fall, with the heads that a head feeds).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import chain, zip_longest

from backend.core.heads import Site
from backend.methods.stage import NO_TEST, Stage
from backend.tasks.circuit import Node
from backend.tasks.task import Task

MOST_CANDIDATES = 80
"""Heads that a circuit is grown of, unless told otherwise."""
_TRIED = 8
"""Heads that are tried again for each that goes: as many circuits as run at once."""
_RANKED_ANEW = 0.75
"""All heads are tried once their number has fallen to this share."""
Members = Sequence[Node]
Measure = Callable[[Sequence[Members]], Sequence[float]]
"""How much each of these circuits does alone."""


class Growth(Enum):
    """In which order heads of all groups are added."""

    relative = "relative"
    """By score over that of the group's strongest head.

    A stage scores what goes through the receivers found before it, so scores shrink from group to
    group away from the logits, whatever the group is worth. Not by z: it says how sure a score is,
    grows with the number of prompts, and is largest for heads that do little, and always the same.
    """
    score = "score"
    """By score as it is, the change of the answer: heads near the logits come first."""
    in_turn = "in_turn"
    """The strongest head of each group, then the second of each, and so on."""


GROWTHS: Mapping[Growth, str] = {
    Growth.relative: "score relative to the group’s strongest",
    Growth.score: "score as it is",
    Growth.in_turn: "groups in turn",
}
"""In words, the default first."""


def candidates(
    task: Task,
    stages: Sequence[Stage],
    growth: Growth = Growth.relative,
    most: int = MOST_CANDIDATES,
    centred: bool = False,
) -> tuple[Node, ...]:
    """At most so many (group, head) pairs in the order in which a circuit is grown.

    Those with a negative score in their stage, be it clear or not: what is not needed is pruned. A
    head in two groups at one token is one site, and counts where it comes first.
    """
    ranked = [_ranked(stage, centred) for stage in stages]
    if growth is Growth.in_turn:
        order = [each for row in zip_longest(*ranked) for each in row if each]
    else:
        order = sorted(
            chain.from_iterable(ranked),
            key=lambda each: -each[1] / each[2] if growth is Growth.relative else each[1],
        )
    by_site: dict[Site, Node] = {}
    for (key, head), *_ in order:
        by_site.setdefault(Site(head, task.group(key).position), (key, head))
    return tuple(by_site.values())[:most]


def _ranked(stage: Stage, centred: bool) -> list[tuple[Node, float, float]]:
    """The heads of a stage, the strongest first: each with its score and that of the strongest."""
    scores, _ = stage.ranked(centred)
    strongest = stage.strongest(scores.size, centred, NO_TEST)
    return [((stage.group, h), float(scores[h]), float(scores[strongest[0]])) for h in strongest]


def n_tried(k: int, least: int = _TRIED) -> list[int]:
    """How many heads, `least` or all, are tried each time that one of `k` goes, to the last."""
    ranked_at, found = float("inf"), []
    for left in range(k, 0, -1):
        if left <= max(_RANKED_ANEW * ranked_at, least):
            ranked_at = left
        found.append(left if ranked_at == left else least)
    return found


def pruning(
    members: Members, value: float, measure: Measure, least: int = _TRIED
) -> Iterator[tuple[Node, float]]:
    """Each member as it goes, and what the circuit without it and all before it does.

    value: what all of them do; at `least` so many are tried each time. Of members that cost the
    same, the later one goes.
    """
    left, cost = list(reversed(members)), dict.fromkeys(members, 0.0)
    for n in n_tried(len(left), least):
        cheapest = {*sorted(left, key=cost.__getitem__)[:n]}
        tried = [each for each in left if each in cheapest]
        values = measure([[each for each in left if each != gone] for gone in tried])
        without = dict(zip(tried, values, strict=True))
        cost |= {each: value - without[each] for each in tried}
        gone = max(tried, key=without.__getitem__)
        value = without[gone]
        left.remove(gone)
        yield gone, value
