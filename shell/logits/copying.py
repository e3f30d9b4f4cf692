"""Copying on the page: scores of heads, and what a head makes of each word."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from backend.core.heads import Head
from backend.methods.copying import TOP, Copying, CopyingRequest
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts
from circuitviz.logit_charts import OTHERS, copying_chart
from shell.frame.take_home import Origin, frame_files, origin_of, show_chart, show_control
from shell.frame.words import unmarked
from shell.logits.marks import group_of

COPIES, OPPOSES = "Copying", "Negative copying"
_MOST_SHOWN = 48


def show_copying(
    request: CopyingRequest, found: Sequence[Copying], circuit: Circuit | None
) -> None:
    """Bars for each model, and then one head word by word."""
    which = st.segmented_control(
        "Score",
        [COPIES, OPPOSES],
        key="copying_score",
        required=True,
        persist_state="session",
        help=f"**Copying**: the word is among the {TOP} highest logits of what the head would "
        f"write if it attended to the word alone. **Negative copying**: of the negative of that, "
        "as a head does that writes against the word it sees.",
    )
    for model, each in zip(request.models, found, strict=False):
        _show_scores(model, each, which == OPPOSES, circuit, request.prompts)
    some = found[0]
    mean = sum(score.value for score in some.scores()) / len(some.heads)
    st.caption(
        f"Share of {len(some.words)} words, the answers of {request.prompts}, each as it first "
        "stands in a prompt: what is there after the first layer (for heads of the first layer: "
        "the embedding) goes through the head’s values and output projection alone, then through "
        "the final norm and the unembedding (Wang et al., 2023, appendix A: name movers above "
        "0.95, an average head below 0.20). Chance: "
        f"{some.chance:.3f} for a head that writes any of these words, {TOP / some.n_tokens:.3f} "
        f"for one that writes any token; an average head of "
        f"{unmarked(catalogue.label(request.models[0]))} copies {mean:.2f}. 95 % intervals: "
        "Wilson’s, over words. Pale: not clearly above chance (binomial test of all heads and both "
        "scores, false discovery rate 5 %). Above chance is not yet copying: compare with the "
        "average head."
    )
    _show_words(request, found)


def _show_scores(
    model: str, found: Copying, opposed: bool, circuit: Circuit | None, prompts: Prompts
) -> None:
    scores, clear = found.scores(opposed), found.clear(opposed)
    ranked = sorted(zip(found.heads, scores, strict=True), key=lambda pair: -pair[1].value)
    shown = sorted(ranked[:_MOST_SHOWN], key=lambda pair: pair[0])
    rows = []
    for head, score in shown:
        group = group_of(head, circuit)
        colour = group.colour if group else OTHERS
        rows.append(
            {
                "name": f"{group.key} {head}" if group else str(head),
                "value": score.value,
                "low": score.low,
                "high": score.high,
                "n": score.n,
                "group": f"{group.key}, {group.name}" if group else "–",
                "colour": colour if head in clear else f"{colour}55",
            }
        )
    left_out = len(ranked) - len(shown)
    st.markdown(f"#### {unmarked(catalogue.label(model))}")
    if left_out:
        st.markdown(f"The {len(shown)} highest of {len(ranked)} heads.")
    average = sum(score.value for score in scores) / len(scores)
    show_chart(
        copying_chart(pd.DataFrame(rows), {"chance": found.chance, "average head": average}),
        Origin("logits", (model,), prompts),
        f"copying_{model}",
        f"Copying scores of the heads of {model}",
        what="copying",
        is_wide=True,
    )


def _show_words(request: CopyingRequest, found: Sequence[Copying]) -> None:
    """Ranks of every word in what one head makes of it, in each model."""
    st.markdown("#### Word by word")
    ranked = zip(found[0].heads, (found[0].copied <= TOP).mean(1).tolist(), strict=True)
    best, _ = max(ranked, key=lambda pair: pair[1])
    heads = sorted(frozenset.intersection(*(frozenset(each.heads) for each in found)))
    if st.session_state.get("copying_head") not in heads:
        st.session_state["copying_head"] = best
    head: Head = st.selectbox(
        "Head", heads, format_func=str, key="copying_head", persist_state="session", width=160
    )
    columns: dict[str, list[object]] = {"word": [*found[0].words]}
    for model, each in zip(request.models, found, strict=False):
        row, label = each.heads.index(head), catalogue.label(model)
        for title, ranks in (("rank", each.copied), ("rank of the negative", each.opposed)):
            of = dict(zip(each.words, ranks[row].astype(int).tolist(), strict=True))
            columns[f"{label}: {title}"] = [of.get(word) for word in found[0].words]
    frame = pd.DataFrame(columns)
    st.dataframe(frame, hide_index=True, height=320)
    show_control(
        "copied_words",
        lambda: frame_files(frame, origin_of("logits", request), f"copied words {head}"),
    )
    st.caption(
        f"Where the word stands among all {found[0].n_tokens} tokens, 1 is first, in what the head "
        "writes about it, and in the negative of that."
    )
