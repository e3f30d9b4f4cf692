"""The paper on what the groups encode (DCM, activation patching) and where attention is needed."""

from __future__ import annotations

from statistics import mean

import streamlit as st

from backend import published
from backend.core.statistics import Estimate
from backend.methods.functions import carried
from backend.published import LABELS, Desideratum, Flaw
from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.paper_charts import desiderata_bars, knockout_lines
from circuitviz.tables import Cell
from shell.frame.take_home import Origin, show_chart, show_table
from shell.frame.words import unmarked
from shell.paper.paper import show_flaws
from shell.results import measured

_DESIDERATA = {"object_value": "object", "positional": "position", "box_label_value": "label"}
_EDGES = {
    "from_last_to_correct_obj_pos": "last token → right object",
    "from_last_to_query_box_pos": "last token → query’s label",
    "from_query_box_to_prev_query_box": "query’s label → previous label",
    "from_last_to_random_pos": "last token → random token",
    "from_query_box_to_random_pos": "query’s label → random token",
}


def show_desiderata(model: str) -> None:
    """What each group encodes: by DCM, and by patching the whole group."""
    left, right = st.columns([1, 1.1], gap="large")
    with left:
        _show_masks(model)
    with right:
        patched = _show_patching(model)
    st.caption(
        "Heads get the values that they have on another prompt. A desideratum says which answer to "
        "expect if they carry the object, its position, or the label of its box. Chance among "
        f"seven boxes is {published.CHANCE:.3f}; patching nothing gives "
        f"{published.NOTHING_PATCHED:.3f} for “position”."
    )
    of_goat = (Flaw.adapter,) if "goat-7b" in (model, patched) else ()
    show_flaws(Flaw.label, Flaw.first_index, Flaw.foreign_token, *of_goat)
    _show_ours()


def show_knockout(_: str) -> None:
    """Accuracy of Llama-7B when an attention edge is cut, from each layer on."""
    edges = published.attention_knockout()
    st.markdown("#### The paper: Llama-7B without an attention edge")
    show_chart(
        knockout_lines({_EDGES[edge]: at for edge, at in edges.items()}),
        Origin("paper", ("llama-7b",)),
        "published_knockout",
        "Accuracy of Llama-7B by the first layer in which an attention edge is cut",
        is_wide=True,
    )
    st.caption(
        "Each line: one token may not attend to another, and the cut begins at the layer given; "
        "grey lines are the controls. Published for Llama-7B only, without the number of prompts."
    )


def _show_ours() -> None:
    """What was measured here, the label among it."""
    st.markdown("#### Measured here: whole groups patched in")
    found = measured.choose(
        measured.functions(),
        "measured_functions",
        "Press Run on the Function page, or use `python -m backend functions …`.",
    )
    if not found:
        return
    by_name = {part.desideratum: part for part in found.result}
    clear = {*carried(found.result)}

    def cell(key: str, name: str) -> Cell:
        each = by_name[name].groups.get(key) if name in by_name else None
        if each is None:
            return "not measured"
        if (key, name) in clear:
            return each.expected
        share = each.expected
        return (
            f"{share.value:.3f}\n{share.low:.3f} to {share.high:.3f}, n = {share.n}\n"
            "not clearly above nothing patched, random heads and chance"
        )

    show_table(
        ("Group", *(words.capitalize() for words in _DESIDERATA.values())),
        [
            (f"{group.key}\n{group.name}", *(cell(group.key, n) for n in _DESIDERATA.values()))
            for group in ENTITY_TRACKING.reading_order
        ],
        Origin("paper", (), found.prompts),
        "here desiderata table",
    )
    st.caption(
        f"Ours, not the paper’s, and of another model than the paper’s 7B: "
        f"{unmarked(found.title)}; {found.setting} (Wilson). Share of prompts answered "
        "as expected; indices always differ, "
        "each prompt’s own tokens are read, and the expected label’s object is the token as it "
        "stands in the prompt."
    )


def _show_masks(model: str) -> None:
    found = published.desiderata(model)
    circuit = published.circuit(model)
    st.markdown(f"#### The paper: DCM in {LABELS[model]}")

    def cell(key: str, name: str) -> str:
        each: Desideratum | None = found[key].get(name)
        if each is None:
            return "not measured"
        n_heads = len(circuit.heads(key))
        return f"{each.test_accuracy:.3f}\n{len(each.heads)} of {n_heads} heads"

    show_table(
        ("Group", *(words.capitalize() for words in _DESIDERATA.values())),
        [
            (
                f"{group.key}\n{group.name}",
                *(cell(group.key, name) for name in _DESIDERATA),
            )
            for group in ENTITY_TRACKING.reading_order
        ],
        Origin("paper", (model,)),
        "published masks table",
    )
    st.caption(
        "Share of test prompts that give the desideratum’s expected answer when the heads that the "
        "mask keeps are patched (λ = 0.01). The number of test prompts is not published; no "
        "intervals."
    )


def _show_patching(model: str) -> str:
    """The chart, and the model that was patched."""
    found = published.patching(model)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown("#### The paper: groups patched in", width="content")
        patched: str = st.selectbox(
            "Model that is patched",
            list(found),
            index=list(found).index(model),
            format_func=lambda name: LABELS[name],
            key=f"paper_patched_{model}",
            width=180,
            label_visibility="collapsed",
        )
    show_chart(
        desiderata_bars(
            {
                group.key: {
                    _DESIDERATA[name]: _of_repeats(repeats)
                    for name, repeats in found[patched][group.key].items()
                    if name in _DESIDERATA
                }
                for group in ENTITY_TRACKING.reading_order
            }
        ),
        Origin("paper", (patched,)),
        "published_patching",
        "Share of prompts with each desideratum’s expected answer, by group",
    )
    st.caption(
        f"Groups of {LABELS[model]}’s circuit; mean of ten repeats of {published.N_REPEAT} "
        "prompts; the lines are the lowest and the highest repeat, not intervals."
    )
    if model == "llama-7b":
        with st.expander("More desiderata of B, by the authors’ names"):
            _show_further_desiderata()
    return patched


def _show_further_desiderata() -> None:
    masks = published.desiderata("llama-7b")["B"]
    show_table(
        ("Desideratum", "By DCM", "All of B patched in"),
        [
            (
                name.replace("_", " "),
                f"{masks[name].test_accuracy:.3f}\n{len(masks[name].heads)} heads"
                if name in masks
                else "not measured",
                f"{mean(repeats):.3f}\n{min(repeats):.3f} to {max(repeats):.3f}",
            )
            for name, repeats in published.further_patching().items()
        ],
        Origin("paper", ("llama-7b",)),
        "published further table",
    )


def _of_repeats(repeats: tuple[float, ...]) -> Estimate:
    return Estimate(mean(repeats), min(repeats), max(repeats), published.N_REPEAT)
