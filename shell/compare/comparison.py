"""The outcome of a comparison: the paper's table, charts, sentences and files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import comb, isnan

import pandas as pd
import streamlit as st

from backend.core.metrics import Ablation, Metric
from backend.core.serialize import to_json
from backend.core.statistics import Estimate
from backend.methods.compare import (
    Comparison,
    ComparisonRequest,
    Difference,
    ModelFigures,
    RandomCircuits,
)
from backend.methods.requests import METRICS
from backend.models import catalogue
from circuitviz.model_charts import accuracy_chart, knockout_chart
from circuitviz.tables import Cell, figures_table, signed
from shell.frame import state
from shell.frame.choices import sizes
from shell.frame.take_home import File, figures_files, origin_of, show_chart, show_control
from shell.frame.words import unmarked

KNOCKED_OUT_IN = ("in the circuit", "in the whole model")
_HEADINGS = (
    "Model", "Fine-tuned on", "Full model", "Circuit", "Random circuit", "Faithfulness",
)  # fmt: skip

_ABOVE_CHANCE = "undefined where the model is not above chance"
_OF_MEANS = f"Fieller for faithfulness = circuit / full model, {_ABOVE_CHANCE} or not above zero"
_INTERVALS = {
    Metric.accuracy: "Wilson for accuracies, Nam and Blackwelder for faithfulness = circuit / full "
    "model, undefined where fewer than 6 prompts are right or the model is not above chance",
    Metric.probability: f"Wilson’s with the variance seen for probabilities, {_OF_MEANS}",
    Metric.logit_difference: f"Student for logit differences, {_OF_MEANS}",
}
_PAIRED = {
    Metric.accuracy: "Tango’s, which hold 0 unless McNemar’s exact test refuses it",
    Metric.probability: "Student’s",
    Metric.logit_difference: "Student’s",
}
_OFF = {
    Ablation.mean: "each model’s own means over {} other prompts",
    Ablation.zero: "zeros, not the paper’s means",
    Ablation.resample: "what they give on the counterfactual prompt, not the paper’s means",
}


def show_table(request: ComparisonRequest, result: Comparison) -> None:
    """The columns of the paper's table 1."""
    both = any(row.as_in_paper for row in result.models) and st.toggle(
        "Also as the paper’s code ran it",
        key="as_in_paper",
        help="For models with an adapter on the output projection (`o_proj`), such as Goat-7B. In "
        "the layers in which heads are replaced, the authors’ code multiplies by the projection’s "
        "own weights and so leaves the adapter out. When a circuit is evaluated, all other heads "
        "are knocked out in every layer, so the adapter on `o_proj` is left out in all of them. "
        "This is the likely reason for a difference to the paper’s figures; the other rows are "
        "right. CMAP into a model without an adapter, as in the paper, is not affected.",
    )
    rows = [cells for row in result.models for cells in _rows(row, both)]
    st.html(figures_table(_HEADINGS, rows))
    show_control("comparison", lambda: _files(request, result, rows))
    random, measure = result.models[0].random, METRICS[request.metric]
    st.caption(
        f"{measure[0].upper()}{measure[1:]} on {request.prompts}; circuit "
        f"“{unmarked(request.circuit.name)}” ({sizes(request.circuit)}). 95 % intervals: "
        f"{_INTERVALS[request.metric]}. Knocked-out heads give "
        f"{_OFF[request.ablation].format(result.models[0].n_reference)}. Random "
        f"circuits: {len(random.accuracies)} draws with as many heads at each token; SD is "
        "between draws."
    )


def _rows(row: ModelFigures, both: bool) -> Iterator[tuple[Cell, ...]]:
    label, finetuned_on = catalogue.label(row.name), _finetuned_on(row.name)
    yield label, finetuned_on, row.model, row.circuit, _random(row.random), row.faithfulness
    if both and (paper := row.as_in_paper):
        name = f"{label}\nas the paper’s code ran it"
        yield name, finetuned_on, row.model, paper.circuit, "–", paper.faithfulness


def show_accuracies(request: ComparisonRequest, result: Comparison) -> None:
    """The table's accuracies as bars, or another metric so."""
    measure = METRICS[request.metric]
    st.markdown(
        "#### Is the circuit there?",
        help=f"The {measure} of the whole model, of the circuit alone, and of random circuits.",
    )
    show_chart(
        accuracy_chart(result.models, catalogue.label, measure),
        origin_of("compare", request),
        "accuracies",
        f"The {measure} of full model, circuit and random circuits, for each model",
        is_wide=True,
    )


def show_knockouts(request: ComparisonRequest, result: Comparison) -> None:
    """What every model has left without each group, in the circuit or in the whole model."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.markdown(
            "#### Which group is needed?",
            width="content",
            help=f"The {METRICS[request.metric]} that is left when one whole group is knocked out.",
        )
        state.remember(knocked_out_in=KNOCKED_OUT_IN[0])
        where = st.segmented_control(
            "Knocked out in",
            KNOCKED_OUT_IN,
            key="knocked_out_in",
            persist_state="session",
            required=True,
            label_visibility="collapsed",
        )
    in_model = where == KNOCKED_OUT_IN[1]
    show_chart(
        knockout_chart(
            result.models,
            request.prompts.task,
            catalogue.label,
            in_model,
            METRICS[request.metric],
        ),
        origin_of("compare", request),
        "knockouts",
        f"The {METRICS[request.metric]} left {where} without each group, for each model",
        what=f"knocked out {where}",
        is_wide=True,
    )


def show_differences(request: ComparisonRequest, result: Comparison) -> None:
    """A sentence for every pair of models."""
    if not result.differences:
        return
    st.markdown("#### Do the models differ?")
    st.markdown("\n".join(f"- {difference_sentence(pair)}" for pair in result.differences))
    n_pairs = comb(len(result.models), 2)
    together = f" that hold for all {n_pairs} pairs together (Bonferroni)" if n_pairs > 1 else ""
    st.caption(
        f"Second model less the first, on the same {result.models[0].model.n} prompts, with 95 % "
        f"intervals{together}: {_PAIRED[request.metric]}, and "
        "for faithfulness from the limits of both ratios. A difference is clear when its interval "
        "does not hold 0."
    )


def difference_sentence(pair: Difference) -> str:
    """Whether the second model differs from the first by more than the intervals, in words."""
    measures = {
        "full model": pair.model,
        "circuit": pair.circuit,
        "faithfulness": pair.faithfulness,
    }
    names = f"**{_plain(pair.first)} → {_plain(pair.second)}**"
    return f"{names}: " + "; ".join(_verdict(*item) for item in measures.items()) + "."


def _verdict(measure: str, difference: Estimate) -> str:
    if isnan(difference.value):
        return f"{measure} undefined"
    change = f"{signed(difference.value)} ({signed(difference.low)} to {signed(difference.high)})"
    if not difference.is_clear:
        return f"{measure} not clearly different, {change}"
    return f"{measure} **clearly {'higher' if difference.value > 0 else 'lower'}**, {change}"


def _plain(name: str) -> str:
    return unmarked(catalogue.label(name))


def _files(
    request: ComparisonRequest, result: Comparison, rows: Sequence[Sequence[Cell]]
) -> list[File]:
    """The table, with all that it was measured on in its CSV, and everything."""
    origin = origin_of("compare", request)
    _, *written = figures_files(_HEADINGS, rows, origin, "table")
    measured_on = to_json(request.prompts) | {
        "metric": request.metric.name,
        "ablation": request.ablation.name,
        "circuit": request.circuit.name,
        "heads": [f"{key} {head}" for key, head in request.circuit.members],
    }
    everything = {"measured_on": measured_on, "result": result}
    return [
        File("CSV", origin.name("table", "csv"), "text/csv", lambda: as_csv(request, result)),
        *written,
        File(
            "Everything as JSON",
            origin.name("everything", "json"),
            "application/json",
            lambda: json.dumps(to_json(everything), indent=2),
        ),
    ]


def as_csv(request: ComparisonRequest, result: Comparison) -> str:
    """The table, each figure with its interval and n in columns of their own."""
    option_names = [option.name for option in request.prompts.task.options]
    return pd.DataFrame(
        [
            {
                "model": row.name,
                "finetuned_on": _finetuned_on(row.name),
                **_columns("full_model", row.model),
                **_columns("circuit", row.circuit),
                **_columns("random_circuit", row.random.mean),
                "random_circuit_sd": row.random.spread,
                **_columns("faithfulness", row.faithfulness),
                "circuit_name": request.circuit.name,
                "metric": request.metric.name,
                "ablation": request.ablation.name,
                "seed": request.prompts.seed,
                "task": request.prompts.task.name,
                **dict(zip(option_names, request.prompts.options, strict=True)),
            }
            for row in result.models
        ]
    ).to_csv(index=False)


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {
        name: estimate.value,
        f"{name}_low": estimate.low,
        f"{name}_high": estimate.high,
        f"{name}_n": estimate.n,
    }


def _random(random: RandomCircuits) -> str:
    mean = random.mean
    return (
        f"{mean.value:.3f}\n{mean.low:.3f} to {mean.high:.3f}, n = {mean.n}\nSD {random.spread:.3f}"
    )


def _finetuned_on(name: str) -> str:
    known = catalogue.about(name)
    return known.finetuned_on if known else "not known"
