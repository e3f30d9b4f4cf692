"""Previews of discovery, stage by stage: estimates, and exact scores of some heads beside them.

What a stage feeds are the heads kept in those before it: by their exact scores where the whole
stage is in the store, else as many as asked with the most negative estimates, clear or not: all
stages are to be seen. No circuit is made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from backend.core.heads import Head
from backend.core.metrics import Score
from backend.core.progress import Report
from backend.methods import attribution_patching, quick
from backend.methods.agreement import Agreement, agreement
from backend.methods.attribution_patching import AttributionRequest
from backend.methods.chosen_senders import SenderScores, SendersRequest
from backend.methods.preview import Preview
from backend.methods.quick import N_TOKENS, QuickRequest
from backend.methods.requests import Request
from backend.methods.stage import NO_TEST, Stage, StageRequest
from backend.methods.stages import Criteria
from backend.studies import studies
from backend.studies.stages import stage_request
from backend.tasks.setting import Setting

DEFAULT_CHECKED = 20
MOST_CHECKED = 200


@dataclass(frozen=True)
class Gradients:
    """Scores are estimated by attribution patching, with gradients integrated over some steps."""

    steps: int = 0

    def __str__(self) -> str:
        return f"attribution patching, {attribution_patching.how(self.steps)}"


@dataclass(frozen=True)
class FewTokens:
    """Scores are estimated by path patching in which at most `n` tokens of a prompt run again."""

    n: int = N_TOKENS

    def __str__(self) -> str:
        return quick.how(self.n)


EstimateRequest = AttributionRequest | QuickRequest
_SHARES = {Gradients: 0.2, FewTokens: 0.5}
"""Of the time for a stage that is previewed and checked, what the preview takes, about."""


def by_of(request: EstimateRequest) -> Gradients | FewTokens:
    """How a stage's scores were estimated."""
    if isinstance(request, QuickRequest):
        return FewTokens(request.n_tokens)
    return Gradients(request.steps)


@dataclass(frozen=True)
class Look:
    """What is previewed of a model: which heads feed later stages, and how scores are estimated."""

    setting: Setting
    criteria: Criteria
    score: Score = Score.probability
    by: Gradients | FewTokens = Gradients()

    def request(self, group: str, receivers: tuple[Head, ...]) -> EstimateRequest:
        """The preview of one stage."""
        asked = self.setting.model, self.setting.prompts, group, receivers, self.score
        if isinstance(self.by, FewTokens):
            return QuickRequest(*asked, self.by.n)
        return AttributionRequest(*asked, self.by.steps)


@dataclass(frozen=True, eq=False)
class Previewed:
    """A stage at first look; checked: how it agrees with exact scores, where some are known.

    checked_by: what these are the result of; into_exact: whether its receivers were found by exact
    scores, or the logits receive.
    """

    request: EstimateRequest
    preview: Preview
    checked: Agreement | None
    checked_by: StageRequest | SendersRequest | None
    into_exact: bool


def check_request(request: EstimateRequest, preview: Preview, k: int) -> SendersRequest:
    """The exact scores that a preview is checked by: of its first `k` heads and random others."""
    return SendersRequest(
        request.model,
        request.prompts,
        request.group,
        request.receivers,
        preview.to_check(k, request.prompts.seed),
        request.score,
    )


def run_previews(look: Look, k: int, report: Report) -> Iterator[Previewed]:
    """Preview stage after stage, and measure `k` heads and as many random ones of each exactly.

    What is stored is not computed again. Raises UserError when the model cannot be loaded or
    answers too few prompts right.
    """
    keys, share = look.setting.prompts.task.keys, _SHARES[type(look.by)] if k else 1.0

    def told(group: str, start: float, end: float) -> Report:
        place = keys.index(group)
        return lambda what, done: report(what, (place + start + (end - start) * done) / len(keys))

    def ask(request: EstimateRequest) -> Preview:
        (preview,) = studies.run(request, told(request.group, 0, share))
        return preview

    def check(request: SendersRequest) -> SenderScores:
        (scores,) = studies.run(request, told(request.group, share, 1))
        return scores

    yield from _previews(look, k, ask, check)


def stored_previews(look: Look, k: int) -> list[Previewed]:
    """The previews that are in the store, from the first group on."""

    def find(request: Request) -> Any:
        found = studies.find(request, patiently=False)
        return found.parts[0] if found else None

    return [*_previews(look, k, find, find)]


def _previews(
    look: Look,
    k: int,
    ask: Callable[[EstimateRequest], Preview | None],
    check: Callable[[SendersRequest], SenderScores | None],
) -> Iterator[Previewed]:
    """Stage by stage, until `ask` gives none; those whose stage is stored are checked by all."""
    setting, task = look.setting, look.setting.prompts.task
    of_previews = replace(look.criteria, fdr=NO_TEST, least_effect=0.0)
    kept: dict[str, tuple[Head, ...]] = {}
    exact: set[str] = set()
    for group in task.groups:
        into = [head for key in group.into for head in kept.get(key, ())]
        if not into and group.component != "logits":
            continue
        receivers, in_order = tuple(dict.fromkeys(into)), tuple(sorted({*into}))
        # Which is first says only what found them, and makes no other preview.
        request = look.request(group.key, in_order)
        preview = ask(request)
        if preview is None:
            return
        asked = stage_request(setting, group, receivers, look.score)
        stored = studies.find(asked, patiently=False)
        whole: Stage | None = stored.parts[0] if stored else None
        some = check_request(request, preview, k)
        known = whole or (check(some) if k else None)
        checked = agreement(preview, known, k) if known and k else None
        checked_by = (asked if whole else some) if checked else None
        into_exact = exact.issuperset(group.into)
        yield Previewed(request, preview, checked, checked_by, into_exact)
        if whole and into_exact:
            exact.add(group.key)
        kept[group.key] = (
            look.criteria.kept(group, whole)
            if whole
            else of_previews.kept(group, preview.estimated)
        )
