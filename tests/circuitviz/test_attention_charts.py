"""Charts of attention: every weight and interval is there, and what is not clear is not full."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from backend.core.statistics import Estimate
from backend.tasks.attention_edges import RANDOM, AttentionEdge
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from circuitviz.attention_charts import (
    edge_looks,
    knockout_curves,
    legend_html,
    pattern_matrix,
    role_bars,
)
from circuitviz.prompt import attention_html


def rows_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return next(rows for rows in spec["datasets"].values() if len(rows) > 1)


def test_the_matrix_has_every_weight_that_can_be() -> None:
    weights = np.tril(np.full((4, 4), 0.25))
    spec = pattern_matrix(weights, ["<s>", "The", '"', "The"], 2)
    cells = {(row["query"], row["key"]): row["weight"] for row in rows_of(spec)}
    assert cells.keys() == {(query, key) for query in range(4) for key in range(query + 1)}
    assert set(cells.values()) == {0.25}
    assert '\\\\"' in spec["layer"][0]["encoding"]["x"]["axis"]["labelExpr"] or (
        '"\\""' in spec["layer"][0]["encoding"]["x"]["axis"]["labelExpr"]
    )
    assert [each["name"] for each in spec["params"]] == ["row"]
    assert spec["layer"][1]["transform"] == [{"filter": "datum.query == 2"}]
    assert spec["config"]["background"] == "transparent"


def test_bars_by_role_have_their_intervals_within_their_column() -> None:
    shares = [Estimate(0.75, 0.6, 0.9, 20), Estimate(0.25, 0.1, 0.4, 20)]
    spec = role_bars({"L0.1": {"Base": shares, "Chat": shares}}, ["first", "second"])
    rows = rows_of(spec)
    assert len(rows) == 4
    for row in rows:
        column = ["first", "second"].index(row["target"])
        assert column <= row["left"] <= row["low"] <= row["right"] <= row["high"] < column + 1
        assert row["n"] == 20
    assert {row["model"] for row in rows} == {"Base", "Chat"}


def curves() -> pd.DataFrame:
    rows = [
        {
            "edge": "a → b", "layer": layer, "depth": layer / 2, "value": 0.2 + 0.5 * layer,
            "low": 0.1 + 0.5 * layer, "high": 0.3 + 0.5 * layer, "n": 30, "clear": layer == 0,
            "of": "measured here",
        }
        for layer in range(2)
    ]  # fmt: skip
    paper = {"edge": "a → b", "layer": 31, "depth": 31 / 32, "value": 0.6, "of": "the paper"}
    return pd.DataFrame([*rows, paper | {"clear": False}])


def test_curves_have_bands_and_the_papers_are_dashed() -> None:
    spec = knockout_curves(curves(), {"a → b": "#123456"}, "accuracy", by_depth=True)
    band, line, points = spec["layer"]
    assert band["mark"]["type"] == "area"
    assert band["encoding"]["y"]["field"] == "low"
    assert band["transform"] == points["transform"] == [{"filter": "datum.of == 'measured here'"}]
    assert line["encoding"]["strokeDash"]["scale"]["range"] == [[1, 0], [5, 5]]
    assert points["encoding"]["fill"]["condition"]["test"] == "datum.clear"
    assert line["encoding"]["x"]["field"] == "depth"
    own = knockout_curves(curves(), {"a → b": "#123456"}, "accuracy")
    assert own["layer"][1]["encoding"]["x"]["scale"]["domain"] == [0, 1]


def test_edges_look_alike_whichever_are_shown() -> None:
    for task in (ENTITY_TRACKING, IOI):
        every = edge_looks(task, task.edges)
        named = [colour for edge, colour in every.items() if edge.key != RANDOM]
        assert len(set(named[:3])) == 3
        some = edge_looks(task, task.edges[1:])
        assert all(some[edge] == every[edge] for edge in some if edge.key != RANDOM)
    other = AttentionEdge("last", "prev_query_label")
    assert edge_looks(ENTITY_TRACKING, [other])[other]


def test_words_of_legend_and_prompt_are_escaped() -> None:
    assert "<b>" not in legend_html({"<b>": "#123456"}, "<b>")
    html = attention_html(["<s>", "The", ","], [None, None, None], [0.5, 0.25, 0.25], 2, IOI)
    assert "<s>" not in html
    assert '"0.500: filler"' in html
    assert html.count('class="looked-at"') == 2
    assert html.count('class="looking"') == 1
    assert "--share: 71%" in html
