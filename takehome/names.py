"""File names that say what is in them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from backend.tasks.prompts import Prompts

_ODD = re.compile(r"[^A-Za-z0-9.]+|\.{2,}")
_LONGEST_PART, _MOST_MODELS = 48, 3


def file_name(
    what: Sequence[str], models: Sequence[str], prompts: Prompts | None, suffix: str
) -> str:
    """“compare_accuracies_base+chat_entity-tracking_n500_seed0.svg”, of plain characters only.

    What it is, of which models, on which prompts; `suffix` is the kind of file, without its dot.
    """
    named = "+".join(filter(None, map(plain, models[:_MOST_MODELS])))
    more = f"+{len(models) - _MOST_MODELS}-more" if len(models) > _MOST_MODELS else ""
    parts = [*map(plain, what), named + more, *(_of_prompts(prompts) if prompts else ())]
    return f"{'_'.join(filter(None, parts))}.{suffix}"


def plain(text: str) -> str:
    """A text as part of a file's name: letters, digits, dots and dashes."""
    return _ODD.sub("-", text.rsplit("/", 1)[-1]).strip("-.")[:_LONGEST_PART]


def _of_prompts(prompts: Prompts) -> list[str]:
    options = zip(prompts.task.options, prompts.options, strict=True)
    chosen = [f"{plain(option.name)}{value}" for option, value in options]
    name = prompts.task.name.replace("/", "-")  # of a set: its task and its own
    return [plain(name), *chosen, f"n{prompts.n}", f"seed{prompts.seed}"]
