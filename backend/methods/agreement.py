"""How far a preview of a stage can be trusted: its attributions beside exact scores.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backend.core.heads import Head
from backend.core.statistics import Estimate, spearman
from backend.methods.attribution_patching import Preview
from backend.methods.chosen_senders import SenderScores
from backend.methods.stage import Stage


@dataclass(frozen=True)
class Agreement:
    """A preview beside the exact scores of some heads, or of all that can reach a receiver.

    exact: the scores that are known; k: how many heads count as the strongest; correlation:
    Spearman's, over these heads; of_others: over those that the preview does not rank among its
    `k`, all of them or a random draw; strongest: the `k` of the known heads with the most negative
    scores; missed: those of them that the preview does not rank among its `k`. With the scores of
    `is_whole` all heads `missed` is what it misses; else others may be missed as well.
    """

    exact: Mapping[Head, float]
    k: int
    correlation: Estimate
    of_others: Estimate
    strongest: tuple[Head, ...]
    missed: tuple[Head, ...]
    is_whole: bool


def agreement(preview: Preview, found: Stage | SenderScores, k: int) -> Agreement:
    """How a preview ranks heads beside their exact scores, means over prompts."""
    if isinstance(found, SenderScores):
        exact = {each.head: each.score.value for each in found.heads}
    else:
        exact = {head: float(found.mean[head]) for head in preview.ranked}
    top = preview.top(k)
    strongest = sorted((head for head in exact if exact[head] < 0), key=exact.__getitem__)[:k]
    return Agreement(
        exact,
        k,
        _correlation(preview, exact),
        _correlation(preview, {head: score for head, score in exact.items() if head not in top}),
        tuple(strongest),
        tuple(head for head in strongest if head not in top),
        {*preview.ranked} <= exact.keys(),
    )


def _correlation(preview: Preview, exact: Mapping[Head, float]) -> Estimate:
    estimated = np.array([preview.estimated.mean[head] for head in exact])
    return spearman(estimated, np.array([*exact.values()]))


def in_words(found: Agreement) -> str:
    """What a person should know of it, in a sentence or two."""
    alike = _figure(found.correlation)
    if found.is_whole:
        n = len(found.strongest)
        missed = f"all of the {n} strongest are among the preview’s {found.k}"
        if found.missed:
            missed = (
                f"of the {n} strongest, the preview’s {found.k} miss {len(found.missed)}: "
                f"{', '.join(map(str, found.missed))}"
            )
        return f"All {len(found.exact)} heads exactly: rank correlation {alike}; {missed}."
    return (
        f"{len(found.exact)} heads exactly: rank correlation {alike}, among the "
        f"{found.of_others.n} random ones {_figure(found.of_others)}; {len(found.missed)} of the "
        f"random ones {'belongs' if len(found.missed) == 1 else 'belong'} to the {found.k} "
        "strongest of these. What the preview misses of all heads is known only when the whole "
        "stage has run."
    )


def _figure(of: Estimate) -> str:
    if np.isnan(of.value):
        return "not defined"
    words = f"{of.value:.2f} ({of.low:.2f} to {of.high:.2f}, n = {of.n} heads)"
    return words.replace("-", "\N{MINUS SIGN}")
