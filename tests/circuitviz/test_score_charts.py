"""Charts of discovery: every head and set is there, zero is the middle, nothing paints over."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from circuitviz.score_charts import completeness_scatter, contribution_bars, score_map


def scores(n_layers: int = 2, n_heads: int = 3) -> pd.DataFrame:
    rows = [
        {
            "layer": layer,
            "head": head,
            "name": f"L{layer}.{head}",
            "score": -0.1 * (layer * n_heads + head),
            "standard_error": 0.01,
            "kept": head == n_heads - 1,
        }
        for layer in range(n_layers)
        for head in range(n_heads)
    ]
    return pd.DataFrame(rows)


def rows_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return next(rows for rows in spec["datasets"].values() if len(rows) > 1)


def test_the_map_has_every_head_layers_upward_and_zero_in_the_middle() -> None:
    spec = score_map(scores())
    rows = rows_of(spec)
    assert [row["name"] for row in rows] == list(scores()["name"])
    assert [row["score"] for row in rows] == list(scores()["score"])
    assert rows[4]["figure"] == "−0.4000 ± 0.0100"
    cells = spec["layer"][0]["encoding"]
    assert cells["y"]["sort"] == "descending"
    low, _, _, high = cells["color"]["scale"]["domain"]
    assert low == -high == -0.5
    assert spec["config"]["background"] == "transparent"


def test_kept_heads_have_a_frame_and_strong_ones_a_name() -> None:
    spec = score_map(scores())
    assert spec["layer"][1]["transform"] == [{"filter": "datum.kept"}]
    assert spec["layer"][1]["mark"]["stroke"] == "currentColor"
    labels = {row["name"]: row["label"] for row in rows_of(spec)}
    assert labels["L0.0"] == ""
    assert labels["L1.2"] == "L1.2"


def test_names_can_be_read_on_faded_colours() -> None:
    strong, faded = (rows_of(score_map(scores(), faded=each)) for each in (False, True))
    assert any(row["strong"] for row in strong)
    assert not any(row["strong"] for row in faded)


def test_z_and_n_stand_beside_the_score() -> None:
    spec = score_map(scores().assign(n=100, clear=True))
    assert rows_of(spec)[4]["z"] == "−40.0"
    tooltip = [each["field"] for each in spec["layer"][0]["encoding"]["tooltip"]]
    assert tooltip == ["name", "figure", "z", "n", "clear", "kept"]


def test_a_wide_model_has_few_names() -> None:
    rows = rows_of(score_map(scores(32, 32)))
    assert sum(row["label"] != "" for row in rows) == 5


def test_a_map_can_do_without_names_and_errors() -> None:
    spec = score_map(scores().drop(columns="standard_error"), named=False)
    assert rows_of(spec)[4]["figure"] == "−0.4000"
    assert [layer["mark"]["type"] for layer in spec["layer"]] == ["rect", "rect"]


def test_a_stage_without_effect_can_be_drawn() -> None:
    nothing = scores().assign(score=0.0, kept=False)
    spec = score_map(nothing)
    assert not any(row["label"] for row in rows_of(spec))
    assert spec["layer"][0]["encoding"]["color"]["scale"]["domain"][-1] == 1.0


def test_old_scores_are_faded() -> None:
    marks = [score_map(scores(), faded=faded)["layer"][0] for faded in (True, False)]
    assert [mark["mark"]["opacity"] for mark in marks] == [0.4, 1]


def test_contributions_keep_their_order_and_show_the_threshold() -> None:
    heads = pd.DataFrame(
        {
            "name": ["D L1.0", "A L4.0"],
            "removed": ["none", "L4.1"],
            "before": [0.8, 0.7],
            "after": [0.8, 0.35],
            "gain": [0.0, 1.0],
            "low": [-0.05, 0.8],
            "high": [0.05, 1.2],
            "minimal": [False, True],
            "colour": ["#CC79A7", "#D55E00"],
        }
    )
    spec = contribution_bars(heads, 0.01)
    assert spec["layer"][0]["encoding"]["x"]["sort"] == ["D L1.0", "A L4.0"]
    assert [{"least": 0.01}] in spec["datasets"].values()


@pytest.mark.parametrize("n_random", [0, 3])
def test_the_scatter_has_every_set_and_the_diagonal(n_random: int) -> None:
    figures = {
        f"{what}{end}": 0.5 for what in ("circuit", "model") for end in ("", "_low", "_high")
    }
    removals = pd.DataFrame(
        [{"name": "A", "kind": "A", "n_removed": 2, "colour": "#D55E00"} | figures]
        + [{"name": "random", "kind": "random", "n_removed": 1, "colour": "#888"} | figures]
        * n_random
    )
    spec = completeness_scatter(removals)
    data = [*spec["datasets"].values()]
    assert [{"model": 0, "circuit": 0}, {"model": 1, "circuit": 1}] in data
    assert 1 + n_random in [len(rows) for rows in data]
