"""The paper's figures, method by method, and beside them what was measured here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isnan, nan

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from backend import published
from backend.core.statistics import Estimate
from backend.methods.cmap import Cmap
from backend.methods.compare import Comparison
from backend.methods.completeness import Completeness
from backend.methods.minimality import LEAST_GAIN
from backend.models import catalogue
from backend.published import LABELS, Flaw
from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.paper_charts import accuracy_bars, transplant_bars
from circuitviz.score_charts import OUTSIDE, completeness_scatter, contribution_bars
from shell.discover.examination import contribution_frame, removal_frame
from shell.frame.take_home import Origin, show_chart, show_table
from shell.frame.words import unmarked
from shell.paper.paper import show_flaws
from shell.results import measured

_HERE = "Measured here"
_PAPER = Origin("paper")


def show_faithfulness(_: str) -> None:
    """Table 1 of the paper, and the newest comparison of this tool."""
    with _beside(_show_paper_faithfulness):
        found = measured.choose(
            measured.comparisons(),
            "measured_faithfulness",
            "Press Run on the Compare page, or use `python -m backend compare …`.",
        )
        if found:
            _show_comparison(found)
    show_flaws(Flaw.adapter, Flaw.replacement, Flaw.summary)


def show_cmap(_: str) -> None:
    """CMAP into Llama-7B, and the newest CMAP of this tool."""
    with _beside(_show_paper_cmap):
        found = measured.choose(
            measured.transplants(),
            "measured_cmap",
            "Press Run on the CMAP page, or use `python -m backend cmap …`.",
        )
        if found:
            _show_transplants(found)
    show_flaws(Flaw.a_and_b, Flaw.adapter)


def show_completeness(_: str) -> None:
    """Completeness of FLoat-7B's circuit, and the newest measurement of this tool."""
    with _beside(_show_paper_completeness):
        found = measured.choose(
            measured.completenesses(),
            "measured_completeness",
            "Measure it on the Discover page, or use `python -m backend completeness …`.",
        )
        if found:
            _show_completeness(found)


def show_minimality(model: str) -> None:
    """What the heads of one group add, and the newest measurement of this tool."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.markdown(f"#### The paper: {LABELS[model]}", width="content")
        group = st.segmented_control(
            "Group",
            [group.key for group in ENTITY_TRACKING.reading_order],
            default="C",
            format_func=lambda key: f"{key} · {ENTITY_TRACKING.group(key).name}",
            key="paper_minimality_group",
            required=True,
            label_visibility="collapsed",
        )
    least = published.LEAST_GAINS[model]
    show_chart(
        contribution_bars(published_contributions(model, group), least),
        Origin("paper", (model,)),
        "published_contributions",
        what=f"contributions {group}",
        is_wide=True,
    )
    st.caption(
        f"What each head v of the pool adds, F(circuit − K) / F(circuit − K − v) − 1, on "
        f"{published.N_MINIMALITY} prompts; no intervals are published. Pale heads are not in the "
        f"circuit; the dashed line is its cut at {least:.0%}."
    )
    show_flaws(Flaw.cuts, *((Flaw.adapter,) if model == "goat-7b" else ()))
    st.markdown(f"#### {_HERE}")
    found = measured.choose(
        measured.minimalities(),
        "measured_minimality",
        "Measure it on the Discover page, or use `python -m backend minimality …`.",
    )
    if found:
        show_chart(
            contribution_bars(
                contribution_frame(found.result, LEAST_GAIN, ENTITY_TRACKING), LEAST_GAIN
            ),
            _here(found, found.result.model),
            "here_contributions",
            is_wide=True,
        )
        st.caption(
            f"{unmarked(found.title)}. {found.setting}; the dashed line is at {LEAST_GAIN:.0%}."
        )


def published_contributions(model: str, key: str) -> pd.DataFrame:
    """A row per head of a group's pool, for the bars; K and intervals are not published."""
    members = set(published.circuit(model).heads(key))
    pool = published.minimality(model)[key]
    return pd.DataFrame(
        {
            "name": [str(each.head) for each in pool],
            "removed": "not published",
            "before": [each.accuracy_before for each in pool],
            "after": [each.accuracy_after for each in pool],
            "gain": [each.gain for each in pool],
            "low": nan,
            "high": nan,
            "minimal": [each.head in members for each in pool],
            "colour": ENTITY_TRACKING.group(key).colour,
        }
    )


def published_removals() -> pd.DataFrame:
    """A row per group removed, and one for the random sets with their standard deviations."""
    found = published.completeness()
    random = found.random_sets
    circuit = published.circuit("float-7b")
    rows = [
        {
            "name": "mean of 20 random sets",
            "kind": "random",
            "circuit": random.circuit_mean,
            "circuit_low": random.circuit_mean - random.circuit_std,
            "circuit_high": random.circuit_mean + random.circuit_std,
            "model": random.model_mean,
            "model_low": random.model_mean - random.model_std,
            "model_high": random.model_mean + random.model_std,
            "n_removed": nan,
            "colour": OUTSIDE,
        }
    ]
    for name, left in found.groups.items():
        nothing = dict.fromkeys(("circuit_low", "circuit_high", "model_low", "model_high"), nan)
        rows.append(
            {
                "name": f"group {name}",
                "kind": name,
                "circuit": left.circuit,
                "model": left.model,
                "n_removed": len(circuit.heads(name)),
                "colour": ENTITY_TRACKING.group(name).colour,
                **nothing,
            }
        )
    return pd.DataFrame(rows)


def _beside(show_paper: Callable[[], None]) -> DeltaGenerator:
    """Show the paper's figures on the left; the place beside them is for those measured here."""
    paper, here = st.columns(2, gap="large")
    with paper:
        show_paper()
    here.markdown(f"#### {_HERE}")
    return here


def _show_paper_faithfulness() -> None:
    rows = published.faithfulness()
    n = published.N_FAITHFULNESS
    st.markdown("#### The paper: Llama-7B’s circuit")
    show_chart(
        accuracy_bars(
            {
                LABELS[name]: {
                    "full model": published.estimate(row.model, n),
                    "circuit": published.estimate(row.circuit, n),
                }
                for name, row in rows.items()
            }
        ),
        _PAPER,
        "published_accuracies",
        "The paper’s accuracy of the full model and of the circuit, for each model",
    )
    show_table(
        ("Model", "Full model", "Circuit", "Random", "Faithfulness"),
        [
            (
                f"{LABELS[name]}\n{row.finetuned or 'not fine-tuned'}",
                _rounded(published.estimate(row.model, n)),
                _rounded(published.estimate(row.circuit, n)),
                f"{row.random:.2f}",
                f"{row.faithfulness:.2f}",
            )
            for name, row in rows.items()
        ],
        _PAPER,
        "published table",
    )
    st.caption(
        f"Accuracies on {n} prompts, as published; the intervals are Wilson’s at 95 %, ours, from "
        "these rounded figures. Random circuits: mean of 10."
    )


def _show_comparison(found: measured.Measured[Comparison]) -> None:
    rows = found.result.models
    show_chart(
        accuracy_bars(
            {
                catalogue.label(row.name): {
                    "full model": row.model,
                    "circuit": row.circuit,
                }
                for row in rows
            }
        ),
        _here(found, *(row.name for row in rows)),
        "here_accuracies",
        "Accuracy of the full model and of the circuit, for each model measured here",
    )
    show_table(
        ("Model", "Full model", "Circuit", "Random", "Faithfulness"),
        [
            (
                catalogue.label(row.name),
                _rounded(row.model),
                _rounded(row.circuit),
                _rounded(row.random.mean),
                _rounded(row.faithfulness),
            )
            for row in rows
        ],
        _here(found, *(row.name for row in rows)),
        "here table",
    )
    st.caption(f"{unmarked(found.title)}: {found.setting}.")


def _show_paper_cmap() -> None:
    n = published.N_CMAP
    names = {"none": "target", **{group.key: group.key for group in ENTITY_TRACKING.reading_order}}
    names["all"] = "full circuit"
    sources = published.cmap()
    st.markdown("#### The paper: into Llama-7B")
    show_chart(
        transplant_bars(
            {
                LABELS[source]: {
                    name: published.estimate(figures[key], n) for name, key in names.items()
                }
                for source, figures in sources.items()
            }
        ),
        _PAPER,
        "published_transplants",
        "The paper’s accuracy of Llama-7B with heads of Goat-7B and of FLoat-7B",
    )
    show_table(
        ("Source", *(name.capitalize() for name in names)),
        [
            (
                f"{LABELS[source]}\nrecovery",
                *(_with_recovery(figures, key) for key in names.values()),
            )
            for source, figures in sources.items()
        ],
        _PAPER,
        "published cmap table",
    )
    st.caption(
        f"Accuracy of Llama-7B on {n} prompts with head outputs of a source (itself at "
        f"{sources['goat-7b']['source']:.2f}); intervals in the chart are Wilson’s at 95 %, ours. "
        "Recovery = (patched − target) / (source − target), computed from these figures. Heads: "
        "those that DCM chose of A, B and C, and all of D."
    )


def _show_transplants(found: measured.Measured[Cmap]) -> None:
    result = found.result
    source, target = map(catalogue.label, (result.source, result.target))
    sets = {name: result.sets[name] for name in ("none", *"DCBA", "all") if name in result.sets}
    show_chart(
        transplant_bars({source: {name: outcome.accuracy for name, outcome in sets.items()}}),
        _here(found, result.source, result.target),
        "here_transplants",
        f"Accuracy of {target} with heads of {source}",
    )
    show_table(
        ("Heads", "Accuracy", "Recovery"),
        [
            (f"{name}\n{outcome.n_sites} heads", outcome.accuracy, outcome.recovery)
            for name, outcome in sets.items()
        ],
        _here(found, result.source, result.target),
        "here cmap table",
    )
    st.caption(
        f"{unmarked(found.title)}: source {result.source_accuracy.value:.3f}, target "
        f"{result.target_accuracy.value:.3f}. {found.setting}."
    )


def _show_paper_completeness() -> None:
    st.markdown("#### The paper: FLoat-7B")
    show_chart(
        completeness_scatter(published_removals()),
        Origin("paper", ("float-7b",)),
        "published_completeness",
    )
    random = published.completeness().random_sets
    st.caption(
        "Accuracy of FLoat-7B and of its circuit, each without the same heads K: whole groups, and "
        f"20 random sets (grey, mean ± SD). Mean |model − circuit| over the random sets "
        f"{random.score_mean:.2f} ± {random.score_std:.2f}. Published for FLoat-7B only, without "
        "the number of prompts."
    )


def _show_completeness(found: measured.Measured[Completeness]) -> None:
    show_chart(
        completeness_scatter(removal_frame(found.result, ENTITY_TRACKING)),
        _here(found, found.result.model),
        "here_completeness",
    )
    mean = found.result.mean_incompleteness
    st.caption(
        f"{unmarked(found.title)}: mean |model − circuit| over {mean.n} random sets "
        f"{mean.value:.3f} (95 %, over the sets: {mean.low:.3f} to {mean.high:.3f}). "
        f"{found.setting}."
    )


def _here(found: measured.Measured, *models: str) -> Origin:
    return Origin("paper", models, found.prompts)


def _rounded(estimate: Estimate) -> str:
    if isnan(estimate.value):
        return f"undefined\nn = {estimate.n}"
    return f"{estimate.value:.2f}\n{estimate.low:.2f} to {estimate.high:.2f}"


def _with_recovery(figures: Mapping[str, float], key: str) -> str:
    patched, source, target = (figures[name] for name in (key, "source", "target"))
    recovery = (patched - target) / (source - target) if source != target else nan
    words = "undefined" if isnan(recovery) else f"{recovery:.2f}"
    return f"{patched:.2f}\n{words}".replace("-", "\N{MINUS SIGN}")
