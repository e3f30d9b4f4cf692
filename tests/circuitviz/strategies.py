"""Random circuits, for properties."""

from __future__ import annotations

from hypothesis import strategies as st

from backend.core.heads import Head, ModelShape
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING


@st.composite
def circuits(draw: st.DrawFn) -> tuple[Circuit, ModelShape]:
    """A circuit and the shape of a model that holds it; groups may be empty or overlap."""
    n_layers, n_heads = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    heads = st.builds(Head, st.integers(0, n_layers - 1), st.integers(0, n_heads - 1))
    groups = {
        group: tuple(sorted(draw(st.sets(heads, max_size=60)))) for group in ENTITY_TRACKING.keys
    }
    return Circuit.of(ENTITY_TRACKING, groups), ModelShape(n_layers, n_heads, n_heads, 8)
