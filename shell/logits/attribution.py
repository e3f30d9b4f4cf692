"""Direct attribution on the page: maps of parts, side by side, for one prompt or in the mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from backend.core.heads import Head
from backend.core.statistics import Estimate, mean_estimate
from backend.methods.logit_attribution import (
    Floats,
    LogitAttribution,
    LogitAttributionRequest,
    Parts,
    parts_of,
)
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts
from backend.tasks.task import Group
from circuitviz.logit_charts import contribution_map, in_logits
from shell.frame.take_home import Origin, origin_of, show_chart, show_table
from shell.frame.words import unmarked
from shell.logits.marks import at_the_last_token, group_of

MEAN, ONE = "Mean over prompts", "One prompt"
_OUT_OF_SIGHT = 1e-4
"""Less is rounding, of a model without biases."""


@dataclass(frozen=True)
class _Cell:
    """A part of a model: its place in the map, and what it adds in each prompt [n]."""

    column: str
    layer: int
    name: str
    values: Floats
    head: Head | None = None


def show_attribution(
    request: LogitAttributionRequest, found: Sequence[LogitAttribution], circuit: Circuit | None
) -> None:
    """A map for each model, in the mean or of one prompt, then what groups add together."""
    parts, n = [parts_of(each) for each in found], len(found[0].texts)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.segmented_control(
            "Shown",
            [MEAN, ONE],
            key="attribution_shown",
            required=True,
            persist_state="session",
            label_visibility="collapsed",
        )
        is_mean = st.session_state["attribution_shown"] == MEAN
        row = None if is_mean else int(st.session_state["example"] or 0) % n
        if row is not None:
            _step(row, n)
    cells = [_cells(each) for each in parts]
    largest = max(abs(_value(cell, row)) for each in cells for cell in each) or 1.0
    for place in range(0, len(found), 2):
        columns = st.columns(2, gap="medium")
        for column, number in zip(columns, range(place, min(place + 2, len(found))), strict=False):
            with column:
                _show_map(
                    request.models[number],
                    found[number],
                    cells[number],
                    row,
                    largest,
                    circuit,
                    request.prompts,
                )
    st.caption(_explained(found, row, largest, circuit))
    _show_sums(request, found, parts, circuit)


def _step(row: int, n: int) -> None:
    st.button("◀", on_click=_go, args=((row - 1) % n,), help="Previous prompt")
    st.markdown(f"Prompt {row + 1} of {n}", width="content")
    st.button("▶", on_click=_go, args=((row + 1) % n,), help="Next prompt")


def _go(row: int) -> None:
    st.session_state["example"] = row


def _cells(parts: Parts) -> list[_Cell]:
    """Heads first, then attention’s biases if there are any, MLPs, embedding and other biases."""
    n_layers, n_heads = parts.heads.shape[1:]
    layers = range(n_layers)
    cells = [
        _Cell(str(i), layer, str(Head(layer, i)), parts.heads[:, layer, i], Head(layer, i))
        for layer in layers
        for i in range(n_heads)
    ]
    if abs(parts.attention_biases).max() > _OUT_OF_SIGHT:
        cells += [
            _Cell("bias", layer, f"bias of attention, L{layer}", parts.attention_biases[:, layer])
            for layer in layers
        ]
    cells += [_Cell("MLP", layer, f"MLP of L{layer}", parts.mlps[:, layer]) for layer in layers]
    cells.append(_Cell("embed", 0, "embedding", parts.embedding))
    if abs(parts.bias).max() > _OUT_OF_SIGHT:
        cells.append(_Cell("end", n_layers - 1, "bias of final norm and unembedding", parts.bias))
    return cells


def _value(cell: _Cell, row: int | None) -> float:
    return float(cell.values.mean() if row is None else cell.values[row])


def _show_map(
    model: str,
    found: LogitAttribution,
    cells: list[_Cell],
    row: int | None,
    largest: float,
    circuit: Circuit | None,
    prompts: Prompts,
) -> None:
    st.markdown(f"#### {unmarked(catalogue.label(model))}")
    if row is None:
        total = found.difference
        st.markdown(
            f"Logit difference **{in_logits(total.value)}**, 95 %: {total.low:.2f} to "
            f"{total.high:.2f}, n = {total.n}".replace("-", "\N{MINUS SIGN}")
        )
    else:
        total_here = sum(float(cell.values[row]) for cell in cells)
        st.markdown(
            f"{unmarked(found.texts[row])} **{unmarked(found.answers[row])}**: logit difference "
            f"**{in_logits(total_here)}**"
        )
    show_chart(
        contribution_map(_frame(found, cells, row, circuit), largest),
        Origin("logits", (model,), prompts),
        f"attribution_{model}",
        f"What each part of {model} adds to the logit difference",
        what="contributions" if row is None else f"contributions prompt {row + 1}",
    )


def _frame(
    found: LogitAttribution, cells: list[_Cell], row: int | None, circuit: Circuit | None
) -> pd.DataFrame:
    clear = found.clear

    def of(cell: _Cell) -> dict[str, object]:
        group = group_of(cell.head, circuit)
        mean = mean_estimate(cell.values)
        value = _value(cell, row)
        interval = (mean.low, mean.high) if row is None else ()
        is_clear = cell.head in clear if cell.head else mean.is_clear
        return {
            "column": cell.column,
            "layer": cell.layer,
            "name": cell.name,
            "value": value,
            "figure": in_logits(value, *interval),
            "clear": bool(row is not None or is_clear),
            "group": f"{group.key}, {group.name}" if group else "–",
            "frame": group.colour if group else "",
        }

    return pd.DataFrame([of(cell) for cell in cells])


def _explained(
    found: Sequence[LogitAttribution],
    row: int | None,
    largest: float,
    circuit: Circuit | None,
) -> str:
    gap = max(each.gap for each in found)
    capped = any(each.cap for each in found)
    clear = (
        "Pale, without a number: not clear (of heads: among all heads of the model, Student’s t, "
        "false discovery rate 5 %). "
        if row is None
        else "One prompt has no interval. "
    )
    framed = (
        f"Framed: heads of “{unmarked(circuit.name)}” that work at the last token, in their "
        "group’s colour; heads at other tokens write nothing there themselves. "
        if circuit
        else ""
    )
    return (
        "What each part adds at the last token to the logit of the right answer less the mean "
        f"logit of its competitors, in logits: red for the answer, blue against it, strongest "
        f"colour {largest:.1f}. {clear}{framed}The final norm’s scale is held at what it is on "
        "each prompt, and so is that of norms on what attention adds (Gemma, OLMo 2); the parts "
        f"sum to the logit difference{' before the cap' if capped else ''}, here to within "
        f"{gap:.1g}. Only what is written directly counts: not what a head does through others."
    )


def _in_words(estimate: Estimate) -> str:
    value, low, high = (f"{each:.2f}" for each in (estimate.value, estimate.low, estimate.high))
    return f"{value}\n{low} to {high}, n = {estimate.n}".replace("-", "\N{MINUS SIGN}")


def _show_sums(
    request: LogitAttributionRequest,
    found: Sequence[LogitAttribution],
    parts: Sequence[Parts],
    circuit: Circuit | None,
) -> None:
    """What groups of the circuit, other heads, MLPs and the rest add together, model by model."""
    rows = [_sums(each, circuit) for each in parts]
    is_pair = len(found) == 2 and found[0].texts == found[1].texts
    names = [catalogue.label(name) for name in request.models[: len(parts)]]
    headings = ["Together", *names, *(["Second − first"] if is_pair else [])]

    def cells(name: str) -> list[str]:
        figures = [mean_estimate(each[name]) for each in rows]
        if is_pair:
            figures.append(mean_estimate(rows[1][name] - rows[0][name]))
        return [name, *map(_in_words, figures)]

    show_table(
        headings, [cells(name) for name in rows[0]], origin_of("logits", request), "together"
    )
    st.caption(
        f"In logits, mean over {request.prompts}, 95 % intervals: Student’s. A head of two groups "
        "counts in that which is found first"
        + (
            "; the last column is paired, the same prompts in both models. Each interval holds for "
            "its own."
            if is_pair
            else "."
        )
    )


def _sums(parts: Parts, circuit: Circuit | None) -> dict[str, Floats]:
    n_layers, n_heads = parts.heads.shape[1:]
    everyone = {Head(layer, i) for layer in range(n_layers) for i in range(n_heads)}
    by_group: list[tuple[Group, frozenset[Head]]] = at_the_last_token(circuit) if circuit else []
    rows: dict[str, Floats] = {}
    for group, heads in by_group:
        here = heads & everyone
        rows[f"{group.key}, {group.name}\n{len(here)} heads"] = parts.of_heads(here)
        everyone -= here
    rows[f"{'other' if by_group else 'all'} heads\n{len(everyone)} heads"] = parts.of_heads(
        everyone
    )
    rows[f"MLPs\n{n_layers} layers"] = parts.mlps.sum(1)
    rows["embedding"] = parts.embedding
    biases = parts.attention_biases.sum(1) + parts.bias
    if abs(biases).max() > _OUT_OF_SIGHT:
        rows["biases"] = biases
    rows["logit difference\nall parts"] = parts.difference
    return rows
