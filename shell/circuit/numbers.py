"""The numbers beside the picture: each with its interval, its n and its change."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

import streamlit as st

from backend.core.statistics import Estimate, mean_share, wilson
from backend.tasks.chance import (
    ForcedChoice,
    against_chance,
    faithfulness,
    forced_choice,
    why_undefined,
)
from backend.tasks.setting import Reading
from backend.tasks.task import Words

if TYPE_CHECKING:
    from backend.engine.answers import Answers

_RATIO_HELP = {
    Reading.circuit: "Accuracy of the circuit as it stands, divided by the accuracy of the whole "
    "model (the paper, circuit evaluation). 1 means that the circuit alone does all that the model "
    "does. 95 % score interval of a ratio on the same prompts (Nam and Blackwelder).",
    Reading.model: "Accuracy of the model without the switched-off heads, divided by that of the "
    "whole model. 95 % score interval of a ratio on the same prompts (Nam and Blackwelder).",
}
_LABELS = {
    Reading.circuit: ("Circuit", "Faithfulness"),
    Reading.model: ("Model minus heads", "Accuracy kept"),
}


def show_numbers(
    reading: Reading, words: Words, whole: Answers, before: Answers, after: Answers
) -> None:
    """Four figures in two rows: `before` is with every head on, `after` as it is now."""
    part, share = _LABELS[reading]
    choice = _choice(whole)
    kept, kept_before = (faithfulness(r.correct, whole.correct, choice) for r in (after, before))
    top, bottom = (st.columns(2, gap="small") for _ in range(2))
    with top[0], st.container(gap="xxsmall"):
        _figure(
            "Whole model",
            wilson(whole.correct),
            None,
            "Share of prompts that the untouched model answers right: its most probable next "
            f"token, among all tokens, is {words.answer}. 95 % Wilson interval. "
            f"Beside guessing: {against_chance(choice)}.{_instead(whole, words)}",
        )
    with top[1], st.container(gap="xxsmall"):
        _figure(
            part,
            wilson(after.correct),
            float(after.correct.mean() - before.correct.mean()),
            f"Share of prompts answered right when {_WHAT_RUNS[reading]}. 95 % Wilson interval.",
        )
    with bottom[0], st.container(gap="xxsmall"):
        if isnan(kept.value):
            st.metric(share, "–", help=_RATIO_HELP[reading])
            st.caption(why_undefined(choice, int(whole.correct.sum())))
        else:
            _figure(share, kept, kept.value - kept_before.value, _RATIO_HELP[reading])
    with bottom[1], st.container(gap="xxsmall"):
        _figure(
            "P(right answer)",
            mean_share(after.probability),
            float(after.probability.mean() - before.probability.mean()),
            f"Probability of {words.answer}, mean over prompts. It moves before the accuracy "
            "does. 95 % interval: Wilson’s, with the variance seen.",
        )


def show_chance(whole: Answers) -> None:
    """That the whole model does no better than guessing, if so."""
    choice = _choice(whole)
    if not choice.is_above_chance:
        st.caption(f"Not above chance: {against_chance(choice)}.")


def _choice(whole: Answers) -> ForcedChoice:
    return forced_choice(whole.forced, whole.choice_ids.shape[1])


def _instead(whole: Answers, words: Words) -> str:
    """What is answered where it is not the right answer."""
    wrong = ~whole.correct
    if not wrong.any():
        return ""
    other = int((whole.top_ids[:, :1] == whole.choice_ids)[wrong].any(1).sum())
    return (
        f" Of {wrong.sum()} wrong answers, {other} are {words.competitor}, "
        f"{wrong.sum() - other} another word."
    )


_WHAT_RUNS = {
    Reading.circuit: "only the heads that are on compute, and every other head of the model is "
    "knocked out at every token",
    Reading.model: "everything runs as usual, except for the heads that are switched off",
}


def _figure(label: str, estimate: Estimate, change: float | None, explanation: str) -> None:
    moved = change is not None and abs(change) >= 0.0005
    st.metric(
        label,
        f"{estimate.value:.3f}",
        "untouched" if change is None else f"{change:+.3f}",
        delta_description="" if change is None else "since all on",
        delta_color="normal" if moved else "off",
        delta_arrow="auto" if moved else "off",
        help=explanation,
    )
    told = ": too few to say how much" if estimate.is_vague else ""
    st.caption(f"95 %: {estimate.low:.3f} to {estimate.high:.3f}, n = {estimate.n}{told}")


def announce(reading: Reading, whole: Answers, after: Answers) -> None:
    """The outcome in one sentence for screen readers, with the number of the click it answers."""
    part, share = _LABELS[reading]
    kept = faithfulness(after.correct, whole.correct, _choice(whole)).value
    said = "undefined" if isnan(kept) else f"{kept:.3f}"
    click = f"{st.session_state['epoch']}.{st.session_state['served']}"
    st.html(
        f'<div class="spoken" role="status" data-click="{click}">{part}: accuracy '
        f"{after.correct.mean():.3f}. {share} {said}.</div>"
    )
