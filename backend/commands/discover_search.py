"""`discover --until`: a circuit grown by the scores that were found, then pruned."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from backend.commands.method_commands import add_choice, choice_of
from backend.commands.parts import measure, say
from backend.core.arguments import number, whole
from backend.core.errors import UserError
from backend.core.metrics import Score
from backend.methods.pruning import GROWTHS, MOST_CANDIDATES, candidates
from backend.methods.requests import ABLATIONS, METRICS, TOKENS
from backend.methods.search import (
    Search,
    SearchRequest,
    caution,
    in_words,
    searched_circuit,
    why_no_circuit,
)
from backend.methods.stage import Stage
from backend.methods.stages import Criteria
from backend.studies import studies
from backend.tasks.circuit import Circuit
from backend.tasks.setting import Setting

_MOST = 1000
_CHOICES: Mapping[str, Mapping[Any, str]] = {
    "growth": GROWTHS,
    "metric": METRICS,
    "ablation": ABLATIONS,
    "tokens": TOKENS,
}


def add_search(discover: argparse.ArgumentParser) -> None:
    """Add the options of a search."""
    discover.add_argument(
        "--until",
        type=number(0.01, 1),
        metavar="F",
        help="search the smallest circuit with this faithfulness instead of keeping so many heads "
        "of each group: grown by score, then pruned, on other prompts than those scored, and "
        "measured on others again",
    )
    discover.add_argument(
        "--most",
        type=whole(1, _MOST),
        metavar="K",
        help=f"with --until: grow up to K heads (default: {MOST_CANDIDATES})",
    )
    growths = [each.name.replace("_", "-") for each in GROWTHS]
    discover.add_argument(
        "--growth",
        choices=growths,
        help=f"with --until: in which order, by {', '.join(GROWTHS.values())} (default: "
        f"{growths[0]})",
    )
    for name in ("metric", "ablation", "tokens"):
        add_choice(discover, name, _CHOICES[name])
    discover.set_defaults(metric=None, ablation=None, tokens=None)


def check_search(options: argparse.Namespace) -> None:
    """Raise UserError for options that do not go together."""
    if options.until is None:
        for name in ("most", *_CHOICES):
            if getattr(options, name) is not None:
                raise UserError(f"--{name} is about a search. Add --until, or leave it out.")
    elif options.preview or options.quick:
        raise UserError("A preview is not exact and makes no circuit. Leave --until out.")


def searched(
    options: argparse.Namespace,
    setting: Setting,
    stages: Sequence[Stage],
    criteria: Criteria,
    score: Score,
    base: Circuit,
) -> tuple[Circuit, Any]:
    """The smallest circuit that is so faithful, named as `base`, and the result it came from.

    Raises UserError when there is none.
    """
    growth, metric, ablation, tokens = (
        next(iter(words)) if getattr(options, name) is None else choice_of(options, name, words)
        for name, words in _CHOICES.items()
    )
    most = options.most or MOST_CANDIDATES
    heads = candidates(setting.prompts.task, stages, growth, most, criteria.centred)
    if not heads:
        raise UserError(
            "No head has a negative score in any stage: there is nothing to grow a circuit of. Ask "
            "for more prompts, or for another --score."
        )
    request = SearchRequest(
        setting.model, heads, setting.prompts, growth, score, metric, ablation, tokens
    )
    parts = measure(request)
    found: Search = parts[-1]
    point = found.smallest(options.until)
    if point is None:
        raise UserError(_none(request, found))
    if reason := caution(found, point):
        say(f"note: {reason}")
    say(
        f"{point.n_heads} of {len(heads)} heads, {point.way.value}: "
        f"faithfulness {point.selected:.3f} where it was searched (seed {request.selection.seed}), "
        f"{in_words(point.faithfulness)} on other prompts (seed {request.reported.seed})"
    )
    return searched_circuit(request, found, point, base), studies.as_data(request, parts)


def _none(request: SearchRequest, found: Search) -> str:
    if not found.points:
        return why_no_circuit(found, None) or ""
    return (
        f"No circuit of these {len(request.candidates)} heads is so faithful: the best has "
        f"{found.best:.2f}. What was measured is kept: ask for less with --until, or for more "
        "heads with --most."
    )
