"""The same prompt in several models, side by side: what each would write next."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend.core.errors import UserError
from backend.models import catalogue
from backend.tasks.written import Written
from circuitviz.continuation_chart import continuation_bars
from shell.frame import state, waiting
from shell.frame.choices import choose_models
from shell.frame.take_home import Origin, show_chart
from shell.frame.words import unmarked

MODELS = "prompt_models"
_A_ROW = 4


def show_beside(prompt: Written) -> None:
    """Controls, and the likeliest next tokens in each of the chosen models."""
    view = state.current()
    state.remember(**{MODELS: [view.model]})
    st.markdown("#### The same prompt in several models")
    models = choose_models(MODELS)
    for start in range(0, len(models), _A_ROW):
        for column, model in zip(
            st.columns(_A_ROW, gap="medium"), models[start : start + _A_ROW], strict=False
        ):
            with column:
                st.markdown(f"**{unmarked(catalogue.label(model))}**")
                try:
                    _show_likeliest(model, prompt)
                except UserError as error:
                    st.error(unmarked(error))
    st.caption("The likeliest next tokens and their probabilities, one prompt, nothing switched.")


def _show_likeliest(model: str, prompt: Written) -> None:
    waiting.wait_for_model(model, state.current().prompts)
    from backend.studies.written import continuations

    with waiting.memory_permitting():
        found = continuations(model, prompt.text)
    words = [word.strip() or repr(word) for word, _ in found]
    frame = pd.DataFrame(
        {
            "word": words,
            "probability": [probability for _, probability in found],
            "is_answer": [word == prompt.answer for word in words],
        }
    ).drop_duplicates("word")
    show_chart(
        continuation_bars(frame),
        Origin("prompt", (model,)),
        f"continuations_{model}",
        f"Likeliest next tokens in {catalogue.label(model)}",
        what="likeliest",
    )
