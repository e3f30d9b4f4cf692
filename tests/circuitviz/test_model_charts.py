"""Charts that compare models: what their specifications say."""

from __future__ import annotations

from typing import Any

from backend.core.heads import Head
from backend.core.statistics import Estimate
from backend.methods.cmap import Transplanted
from backend.methods.compare import Knockout, ModelFigures, RandomCircuits
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.model_charts import accuracy_chart, head_chart, knockout_chart, transplant_chart
from circuitviz.overlap import overlap_picture

NAN = float("nan")


def about(value: float) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.1, 50)


MODEL = ModelFigures(
    "base",
    about(0.8),
    about(0.7),
    about(0.9),
    RandomCircuits(about(0.2), 0.05, (0.15, 0.25)),
    {
        key: Knockout(about(0.4), about(0.3), about(-0.4), about(-0.4))
        for key in ENTITY_TRACKING.keys
    },
    300,
)
UNDEFINED = Transplanted(1, about(0.5), about(-0.1), Estimate(NAN, NAN, NAN, 50))
DEFINED = Transplanted(1, about(0.5), about(0.1), about(0.5))


def rows(chart: Any) -> list[dict[str, Any]]:
    return [row for data in chart["datasets"].values() for row in data]


def marks(chart: Any) -> list[str]:
    return [layer["mark"]["type"] for layer in chart["layer"]]


def test_each_model_has_three_bars_with_intervals() -> None:
    chart = accuracy_chart([MODEL], str.upper)
    assert marks(chart) == ["rect", "rule", "text"]
    assert [(r["model"], r["kind"], r["accuracy"], r["n"]) for r in rows(chart)] == [
        ("BASE", "full model", 0.8, 50),
        ("BASE", "circuit", 0.7, 50),
        ("BASE", "random circuits", 0.2, 50),
    ]


def test_knocked_out_groups_stand_in_reading_order_with_their_letters() -> None:
    for in_model, intact, left in ((True, 0.8, 0.4), (False, 0.7, 0.3)):
        shown = rows(knockout_chart([MODEL], ENTITY_TRACKING, str, in_model))
        assert [row["text"].split("\n")[0] for row in shown] == ["all", "D", "C", "B", "A"]
        assert [row["accuracy"] for row in shown] == [intact, left, left, left, left]


def test_an_undefined_recovery_is_said() -> None:
    chart = transplant_chart(
        {"none": UNDEFINED, "your set": DEFINED},
        {"source": about(0.8), "target": about(0.6)},
        {},
    )
    labels = [row["label"] for row in rows(chart) if "label" in row]
    assert labels == ["none\nundefined", "your set\n0.50"]
    assert chart["config"]["background"] == "transparent"


def test_a_map_is_centred_at_zero_and_frames_what_is_pinned() -> None:
    chart = head_chart([[DEFINED, UNDEFINED]], [[True, False]], {Head(0, 1)}, 0.5)
    shown = rows(chart)
    assert [row["text"] for row in shown] == ["+0.50", ""], "no number that is not clear"
    assert [(row["effect"], row["pinned"]) for row in shown] == [(0.5, False), (-0.1, True)]
    assert "0.500, 95 %:" in shown[0]["recovery"]
    assert shown[1]["recovery"] == "undefined"
    domain = chart["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert domain == [-number for number in reversed(domain)]


def test_the_overlap_says_whose_each_head_is() -> None:
    first = Circuit.of(ENTITY_TRACKING, {"A": (Head(1, 0), Head(1, 1))}, "first")
    second = Circuit.of(ENTITY_TRACKING, {"A": (Head(1, 1),), "B": (Head(0, 2),)}, "second")
    chart = overlap_picture(first, second, ("first", "second"))
    whose = {row["head"]: row["whose"] for row in rows(chart) if "whose" in row}
    assert whose == {"L1.0": "only first", "L1.1": "in both", "L0.2": "only second"}


def test_two_empty_circuits_have_a_picture() -> None:
    assert overlap_picture(
        Circuit.of(ENTITY_TRACKING, {}), Circuit.of(ENTITY_TRACKING, {}), ("a", "b")
    )
