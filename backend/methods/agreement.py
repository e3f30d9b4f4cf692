"""How far a preview of a stage can be trusted: its attributions beside exact scores.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress

import numpy as np

from backend.core.heads import Head
from backend.core.statistics import Estimate, clear_among, spearman
from backend.methods.chosen_senders import SenderScores
from backend.methods.preview import Preview
from backend.methods.stage import Stage
from backend.methods.stages import DEFAULT_FDR


@dataclass(frozen=True)
class Agreement:
    """A preview beside the exact scores of some heads, or of all that can reach a receiver.

    exact: the scores that are known; k: how many heads count as the strongest; n: over how many
    prompts the scores are means; correlation: Spearman's, over these heads; of_others: over those
    that the preview does not rank among its `k`, all of them or a random draw; strongest: the `k`
    of the known heads with the most negative scores; missed: those of them that the preview does
    not rank among its `k`; clear: those of the missed whose scores are clearly below zero (false
    discovery rate 5 %); off: the estimate less the exact score of each head that it does rank
    among its `k`, the furthest off first. With the scores of all heads (`is_whole`) `missed` is
    what it misses; else others may be missed as well.
    """

    exact: Mapping[Head, float]
    k: int
    n: int
    correlation: Estimate
    of_others: Estimate
    strongest: tuple[Head, ...]
    missed: tuple[Head, ...]
    clear: tuple[Head, ...]
    off: Mapping[Head, float]
    is_whole: bool


def agreement(preview: Preview, found: Stage | SenderScores, k: int) -> Agreement:
    """How a preview ranks heads beside their exact scores, means over prompts."""
    exact, clear = _exact(preview, found)
    top = preview.top(k)
    negative = (head for head in exact if exact[head] < 0)
    strongest = tuple(sorted(negative, key=exact.__getitem__)[:k])
    missed = tuple(head for head in strongest if head not in top)
    estimated = preview.estimated.mean
    off = {head: float(estimated[head]) - exact[head] for head in top if head in exact}
    return Agreement(
        exact,
        k,
        preview.estimated.n,
        _correlation(preview, exact),
        _correlation(preview, {head: score for head, score in exact.items() if head not in top}),
        strongest,
        missed,
        tuple(head for head in missed if head in clear),
        dict(sorted(off.items(), key=lambda each: -abs(each[1]))),
        {*preview.ranked} <= exact.keys(),
    )


def _exact(preview: Preview, found: Stage | SenderScores) -> tuple[dict[Head, float], set[Head]]:
    """Mean scores of the heads that were run, and which of these are clear."""
    if isinstance(found, Stage):
        clear = found.clear(DEFAULT_FDR)
        exact = {head: float(found.mean[head]) for head in preview.ranked}
        return exact, {head for head in exact if clear[head]}
    chosen = clear_among([each.score for each in found.heads], DEFAULT_FDR)
    exact = {each.head: each.score.value for each in found.heads}
    return exact, {each.head for each in compress(found.heads, chosen)}


def _correlation(preview: Preview, exact: Mapping[Head, float]) -> Estimate:
    estimated = np.array([preview.estimated.mean[head] for head in exact])
    return spearman(estimated, np.array([*exact.values()]))


def in_words(found: Agreement) -> str:
    """What a person should know of it, in a few sentences."""
    n, alike, off = len(found.exact), _figure(found.correlation), _off(found)
    if not found.is_whole:
        return (
            f"{n} heads exactly: rank correlation {alike}; among the random ones, "
            f"{_figure(found.of_others)}. Of the {len(found.strongest)} strongest of these, "
            f"{_missed(found)}.{off} What it misses of all heads is known only when the whole "
            "stage has run."
        )
    said = f"All {n} heads exactly: rank correlation {alike}."
    if n <= found.k:
        return f"{said}{off}"
    return f"{said} Of the {len(found.strongest)} strongest, {_missed(found)}.{off}"


def _off(found: Agreement) -> str:
    """How far the estimates of the heads that it ranks highest are from their exact scores."""
    if not found.off:
        return ""
    head, furthest = next(iter(found.off.items()))
    words = (
        f" Its {len(found.off)} highest are off by at most {abs(furthest):.2g} ({head}: "
        f"{found.exact[head] + furthest:+.4f}, exactly {found.exact[head]:+.4f}; n = {found.n} "
        "prompts)."
    )
    return words.replace("-", "\N{MINUS SIGN}")


def _missed(found: Agreement) -> str:
    if not found.missed:
        return f"the preview ranks all among its {found.k}"
    names = ", ".join(map(str, found.missed))
    clear = ", ".join(map(str, found.clear)) or "none"
    if found.clear == found.missed:
        clear = "all"
    return (
        f"the preview misses {len(found.missed)} among its {found.k}: {names} (clearly below zero: "
        f"{clear})"
    )


def _figure(of: Estimate) -> str:
    if np.isnan(of.value):
        return "not defined"
    words = f"{of.value:.2f} ({of.low:.2f} to {of.high:.2f}, n = {of.n} heads)"
    return words.replace("-", "\N{MINUS SIGN}")
