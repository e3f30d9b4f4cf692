"""The logit lens on the page: lines by layer, a row for each token, models side by side."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from backend.core.statistics import Estimate
from backend.methods.logit_lens import (
    LensLayer,
    LogitLens,
    LogitLensRequest,
    after,
    first_clear,
    token_words,
)
from backend.models import catalogue
from backend.tasks.prompts import Prompts
from circuitviz.logit_charts import lens_chart
from shell.frame.take_home import Origin, show_chart
from shell.frame.words import unmarked

PROBABILITY, RANK, FIRST, AHEAD = "Probability", "Rank", "First of all", "First of its competitors"
MEASURES = {
    PROBABILITY: "probability",
    RANK: "median rank",
    FIRST: "share of prompts",
    AHEAD: "share of prompts",
}


def show_lens(request: LogitLensRequest, found: Sequence[LogitLens]) -> None:
    """Lines of the right answer and its competitors at each token, the last one first."""
    st.segmented_control(
        "Measure",
        list(MEASURES),
        key="lens_measure",
        required=True,
        persist_state="session",
        help="**Probability** of the right answer, and of a competitor, the mean of theirs. "
        "**Rank** among all tokens, 1 is first: the median over prompts. **First of all**: share "
        "of prompts on which the right answer is first among all tokens, **of its competitors**: "
        "ahead of those that it competes with, which can be guessed.",
    )
    task, measure = request.prompts.task, st.session_state["lens_measure"]
    for token in reversed([*found[0].tokens]):
        words = token_words(task, token)
        st.markdown(f"#### {words[0].upper()}{words[1:]}")
        for place in range(0, len(found), 2):
            for number, column in enumerate(st.columns(2, gap="medium"), place):
                if number < len(found):
                    with column:
                        _show_lines(
                            request.models[number], token, found[number], measure, request.prompts
                        )
    st.caption(
        "What would be answered if the layers after this one did not run: the residual stream "
        "through the model’s own final norm and unembedding (nostalgebraist, 2020). The model was "
        "not trained to be read so: low layers may say little and hold much. First on most "
        "prompts: on clearly more than half of them, from there on. Bands: 95 % "
        "intervals; Wilson’s for shares, with the variance seen for probabilities, by order "
        f"statistics for medians. {request.prompts}."
    )


def _show_lines(model: str, token: str, found: LogitLens, measure: str, prompts: Prompts) -> None:
    layers = found.tokens[token]
    depth = first_clear(layers)
    said = (
        "answer first on most prompts: nowhere"
        if depth is None
        else f"answer first on most prompts: **{after(depth)}**"
    )
    st.markdown(f"**{unmarked(catalogue.label(model))}**: {said}")
    show_chart(
        lens_chart(_frame(layers, found, measure), MEASURES[measure], measure == RANK),
        Origin("logits", (model,), prompts),
        f"lens_{token}_{model}",
        f"{measure} of the right answer by layer, {token}, in {model}",
        what=f"lens {token} {measure}",
    )


def _frame(layers: Sequence[LensLayer], found: LogitLens, measure: str) -> pd.DataFrame:
    rows = []
    for depth, layer in enumerate(layers):
        for which, estimate in _lines(layer, measure).items():
            rows.append(
                {
                    "after": after(depth).removeprefix("after ").removeprefix("the "),
                    "which": which,
                    "value": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "n": estimate.n,
                }
            )
        if measure == AHEAD and found.forced_choice:
            chance = {"after": rows[-1]["after"], "which": "chance"}
            rows.append(chance | {"value": found.forced_choice.chance})
    return pd.DataFrame(rows)


def _lines(layer: LensLayer, measure: str) -> dict[str, Estimate]:
    right, other = "right answer", "a competitor"
    match measure:
        case "Probability":
            return {right: layer.probability, other: layer.competitor}
        case "Rank":
            return {right: layer.rank, other: layer.competitor_rank}
        case "First of all":
            return {right: layer.first}
        case _:
            return {right: layer.forced}
