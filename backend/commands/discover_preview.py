"""`discover --preview` and `--quick`: every stage estimated, and exact scores of some heads."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from backend.commands.parts import (
    progress,
    say,
    say_what_is_at_chance,
    say_what_is_to_be_known,
)
from backend.core.arguments import whole
from backend.core.errors import UserError
from backend.core.metrics import Score
from backend.core.serialize import to_json
from backend.methods.agreement import in_words
from backend.methods.attribution_patching import MOST_STEPS
from backend.methods.quick import N_TOKENS
from backend.methods.stages import Criteria
from backend.studies import studies
from backend.studies.previews import (
    DEFAULT_CHECKED,
    MOST_CHECKED,
    FewTokens,
    Gradients,
    Look,
    Previewed,
    run_previews,
)
from backend.tasks.setting import Setting

_SHOWN = 8


def add_preview(discover: argparse.ArgumentParser) -> None:
    """Add the options of a preview."""
    way = discover.add_mutually_exclusive_group()
    way.add_argument(
        "--preview",
        action="store_true",
        help="estimate all scores by attribution patching, in seconds, and measure some heads "
        "exactly to see how far that can be trusted; makes no circuit",
    )
    way.add_argument(
        "--quick",
        action="store_true",
        help=f"estimate all scores by path patching in which at most {N_TOKENS} tokens of each "
        "prompt run again, with gradients for the rest, and measure some heads exactly; makes no "
        "circuit",
    )
    discover.add_argument(
        "--steps",
        type=whole(0, MOST_STEPS),
        metavar="M",
        help="with --preview: integrate gradients over M steps (default: 0, first order)",
    )
    discover.add_argument(
        "--check",
        type=whole(0, MOST_CHECKED),
        metavar="K",
        help="with --preview or --quick: measure the K heads that rank highest, and K random "
        f"others, exactly (default: {DEFAULT_CHECKED})",
    )


def check_preview(options: argparse.Namespace) -> None:
    """Raise UserError for options that do not go together."""
    if is_preview(options) and options.save is not None:
        raise UserError(
            "A preview is not exact and makes no circuit. Leave --save out, or run the stages."
        )
    if options.steps is not None and not options.preview:
        raise UserError("--steps is about gradients. Add --preview, or leave it out.")
    if options.check is not None and not is_preview(options):
        raise UserError("--check is about a preview. Add --preview or --quick, or leave it out.")


def is_preview(options: argparse.Namespace) -> bool:
    """Whether stages are to be estimated."""
    return bool(options.preview or options.quick)


def look_of(
    options: argparse.Namespace, setting: Setting, criteria: Criteria, score: Score
) -> Look:
    """What is previewed, and how it is estimated."""
    by = FewTokens() if options.quick else Gradients(options.steps or 0)
    return Look(setting, criteria, score, by)


def preview(look: Look, options: argparse.Namespace) -> Any:
    """Preview every stage; the results as the store has them, and how they agree."""
    k = DEFAULT_CHECKED if options.check is None else options.check
    setting = look.setting
    found = [*run_previews(look, k, progress())]
    say_what_is_to_be_known([setting.model], setting.prompts.task)
    say(f"preview, not exact: {look.by}; no circuit is made of it")
    for each in found:
        _say(each)
    say_what_is_at_chance([setting.model], [each.preview for each in found])
    return {
        "preview": True,
        "stages": [_agreement(each) for each in found],
        "results": [result for each in found for result in _results(each)],
    }


def _say(each: Previewed) -> None:
    stage = each.preview.estimated
    shown = (f"{head} {stage.mean[head]:+.4f}" for head in each.preview.top(_SHOWN))
    say(f"{stage.group}, preview, not exact: {', '.join(shown) or 'none'}; n = {stage.n}")
    if each.checked:
        say(f"{stage.group}, checked: {in_words(each.checked)}")


def _agreement(each: Previewed) -> Any:
    found = each.checked
    if found is None:
        return {"group": each.request.group}
    return {
        "group": each.request.group,
        "is_whole": found.is_whole,
        "k": found.k,
        "rank_correlation": to_json(found.correlation),
        "rank_correlation_of_others": to_json(found.of_others),
        "strongest": to_json(found.strongest),
        "missed": to_json(found.missed),
        "off": {str(head): error for head, error in found.off.items()},
    }


def _results(each: Previewed) -> Iterator[Any]:
    yield studies.as_data(each.request, (each.preview,))
    if each.checked_by and (stored := studies.find(each.checked_by)):
        yield studies.as_data(each.checked_by, stored.parts)
