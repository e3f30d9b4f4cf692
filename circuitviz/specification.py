"""Charts as Vega-Lite specifications, each drawn once: Altair takes tenths of a second over one."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec

import altair as alt

Arguments = ParamSpec("Arguments")
Specification = dict[str, Any]
_KEPT = 128
"""Of each kind of chart."""

# Streamlit has room for charts, and a look for them; with a map of many heads, many rows.
alt.theme.enable("none")
alt.data_transformers.disable_max_rows()


def drawn_once(
    draw: Callable[Arguments, alt.LayerChart],
) -> Callable[Arguments, Specification]:
    """The specification of a chart, data included; for equal arguments it is drawn once."""

    @lru_cache(_KEPT)
    def specification(pickled: bytes) -> str:
        arguments, named = pickle.loads(pickled)
        # The tests check that they are valid: here, that would take a third of the time.
        return json.dumps(draw(*arguments, **named).to_dict(validate=False))

    @wraps(draw)
    def drawn(*arguments: Arguments.args, **named: Arguments.kwargs) -> Specification:
        spec: Specification = json.loads(specification(pickle.dumps((arguments, named))))
        return spec

    return drawn
