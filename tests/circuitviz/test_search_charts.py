"""The curve of a circuit search: every circuit is there, and the marked one is marked."""

from __future__ import annotations

import pandas as pd

from circuitviz.search_charts import GROWN, PRUNED, RANDOM, search_curve

CIRCUITS = pd.DataFrame(
    {
        "way": [GROWN, GROWN, PRUNED, RANDOM],
        "heads": [0, 2, 1, 2],
        "faithfulness": [0.1, 0.9, 0.8, 0.2],
        "low": [0.0, 0.8, 0.7, 0.1],
        "high": [0.2, 1.0, 0.9, 0.3],
        "interval": ["a", "b", "c", "d"],
        "searched": ["0.1", "0.9", "0.8", "–"],
    }
)


def test_all_circuits_are_drawn_with_their_bands() -> None:
    spec = search_curve(CIRCUITS, None)
    bands, whole, lines, dots = spec["layer"]
    assert (bands["mark"]["type"], bands["encoding"]["y2"]["field"]) == ("area", "high")
    assert spec["datasets"][whole["data"]["name"]] == [{"faithfulness": 1.0}]
    for layer in (bands, lines, dots):
        assert spec["datasets"][layer["data"]["name"]] == CIRCUITS.to_dict("records")
        assert layer["encoding"]["color"]["scale"]["domain"] == [GROWN, PRUNED, RANDOM]


def test_the_chosen_circuit_is_marked_with_its_size() -> None:
    spec = search_curve(CIRCUITS, 2)
    *_, ring, label = spec["layer"]
    (row,) = spec["datasets"][label["data"]["name"]]
    assert (row["heads"], row["faithfulness"], row["label"]) == (1, 0.8, "1 heads")
    assert ring["mark"]["type"] == "point"
    assert label["mark"]["type"] == "text"
