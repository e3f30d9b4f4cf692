"""Charts: every answer appears before and after, nothing paints over the theme."""

from __future__ import annotations

import pandas as pd

from circuitviz.charts import answer_bars


def test_answer_bars_pair_before_and_after_in_the_given_order() -> None:
    answers = pd.DataFrame(
        {
            "word": ["apple", "clock"],
            "before": [0.71, float("nan")],
            "after": [0.12, 0.48],
            "kind": ["after, right", "after"],
        }
    )
    spec = answer_bars(answers, {"before": 0.0123, "after": 0.001})
    rows = spec["data"]["values"]
    looks = {(row["word"], row["look"]): row["text"] for row in rows}
    assert looks == {
        ("apple", "before"): "0.71",
        ("apple", "after, right"): "0.12",
        ("clock", "before"): "< 0.02",
        ("clock", "after"): "0.48",
    }
    for layer in spec["layer"]:
        assert layer["encoding"]["y"]["sort"] == ["apple", "clock"]
    assert [row["probability"] for row in rows] == [0.71, 0.0, 0.12, 0.48]
    other = answer_bars(answers[::-1], {"before": 0.0, "after": 0.0})
    assert other["layer"][0]["encoding"]["y"]["sort"] == ["clock", "apple"]
    assert spec["config"]["background"] == "transparent"
